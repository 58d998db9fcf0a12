"""What an agent finds on its machine."""

from pathlib import Path

from nodeagent.facts import SYSCTLS, mount_of, processor_name, system_facts

TABLE = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro
40 22 0:40 / /shared rw,nosuid,nodev - nfs4 10.0.0.1:/shared rw,vers=4.1,hard,addr=10.0.0.1
41 22 0:41 / /shared2 rw - tmpfs tmpfs rw
"""


def test_the_file_system_of_a_directory_is_the_innermost_mount_above_it() -> None:
    shared = mount_of(Path("/shared"), TABLE)
    assert (shared.source, shared.type) == ("10.0.0.1:/shared", "nfs4")
    assert shared.options == "rw,nosuid,nodev,vers=4.1,hard,addr=10.0.0.1"
    assert mount_of(Path("/shared/x"), TABLE).type == "nfs4"
    assert mount_of(Path("/sharedness"), TABLE).type == "ext4"
    assert mount_of(Path("/shared"), "").type == ""


def test_what_is_not_there_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "sys/kernel").mkdir(parents=True)
    (tmp_path / "sys/kernel/pid_max").write_text("32768\n")
    found = system_facts(Path("/shared"), tmp_path)
    assert found.sysctls == {"kernel.pid_max": "32768"} and found.processor == "" and found.shared.source == ""
    here = system_facts(Path("/"))
    assert "kernel.pid_max" in here.sysctls and set(here.sysctls) <= set(SYSCTLS) and here.shared.type


def test_the_processor_has_the_name_the_kernel_gives_it() -> None:
    assert processor_name("processor : 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name : Another\n") == "Some CPU @ 2 GHz"
