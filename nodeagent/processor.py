"""What the processors of this node can do for programs: a job may only go where all of that is there again.

A program looks once, at its start, and then uses what it saw; criu restores it as it was.
"""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
LINES = ("flags", "Features")
"""As x86 and ARM call it."""
_WORDS = """
acpi amd_ibpb amd_ibrs amd_lbr_v2 amd_ppin amd_ssbd amd_stibp aperfmperf apic arat arch_capabilities arch_lbr arch_perfmon art
avic bpext brs bts bus_lock_detect cat_l2 cat_l3 cdp_l2 cdp_l3 cmp_legacy constant_tsc core_perfmon cpb cppc cpuid_fault cqm
cqm_llc cqm_mbm_local cqm_mbm_total cqm_occup_llc cr8_legacy dca de decodeassists ds_cpl dtes64 dtherm dts epb ept ept_ad est
extapic extd_apicid flexpriority flush_l1d flushbyasid hfi ht hw_pstate hwp hwp_act_window hwp_epp hwp_notify hwp_pkg_req
hypervisor ibpb ibrs ibrs_enhanced ibs ida intel_ppin intel_pt invpcid invpcid_single irperf lbrv mba mca mce md_clear monitor
msr mtrr nodeid_msr nonstop_tsc nopl npt nrip_save osvw overflow_recov pae pat pausefilter pbe pcid pconfig pdcm pebs
perfctr_core perfctr_llc perfctr_nb perfmon_v2 pfthreshold pge pln proc_feedback pse pse36 pti ptsc pts rapl rdt_a rep_good
retpoline sdbg sev sev_es sev_snp skinit smap smca smep smx split_lock_detect ss ssbd stibp stibp_always_on succor svm svm_lock
tce tm tm2 topoext tpr_shadow tsc_adjust tsc_deadline_timer tsc_known_freq tsc_reliable tsc_scale v_vmsave_vmload vgif virt_ssbd
vmcb_clean vme vmx vnmi vpid wdt x2apic x2avic xtopology
"""
NOT_FOR_PROGRAMS = frozenset(_WORDS.split())
"""About power, interrupts, virtual machines and the kernel's own defence: programs make no use of them, and nodes differ in them.

Any other word counts, known or not: better a job that is refused than one that is killed by an illegal instruction.
"""


def cpu_flags(cpuinfo: Path = CPUINFO) -> str:
    """What all processors of this machine have, as sorted words; "" where the kernel does not say."""
    lines = (line.partition(":") for line in cpuinfo.read_text().splitlines())
    found = [frozenset(words.split()) for name, _, words in lines if name.strip() in LINES]
    return " ".join(sorted(frozenset.intersection(*found) - NOT_FOR_PROGRAMS)) if found else ""
