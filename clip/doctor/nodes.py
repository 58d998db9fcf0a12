"""Checks of the nodes, over what their agents report. What differs between nodes is what keeps jobs from going where they could."""

from collections.abc import Iterator

from clip.doctor.etcd import parse_version
from clip.doctor.model import Facts, Finding, fail, fine, warn
from crds.meta import Truth, find_condition
from crds.node import BOOTED, IMAGE_DRIFT, READY, Node

CRIU_LEAST = (4, 2, 0)
CLOCK_WARN, CLOCK_FAIL = 2.0, 60.0  # seconds
FEATURES = ("post-copy", "network")
WORDS_SHOWN = 6
AT_LEAST = ("fs.inotify.max_user_instances", "fs.nr_open", "kernel.pid_max", "vm.max_map_count")
"""Settings of which a job may have used as much as the node had that it comes from."""
NFS_VERSION = "vers=4.2"


def nodes_ready(facts: Facts) -> Iterator[Finding]:
    """Every declared node should be there, but those that somebody switched off."""
    for each in facts.nodes:
        condition = find_condition(each.node.status.conditions, READY)
        if each.node.status.asleep or (condition is not None and condition.status is Truth.TRUE):
            continue
        booted = find_condition(each.node.status.conditions, BOOTED)
        stuck = booted.message if booted is not None and booted.status is Truth.FALSE else ""
        why = stuck or (condition.message if condition else "") or "it was never heard"
        yield fail("nodes", f"node/{each.name}", f"not Ready: {why}", f"mxctl describe node {each.name}; is it switched on?")
    if facts.nodes and all(_is_ready(each.node) for each in facts.nodes):
        yield fine("nodes", "nodes", f"all {len(facts.nodes)} are Ready")


def _is_ready(node: Node) -> bool:
    condition = find_condition(node.status.conditions, READY)
    return node.status.asleep or (condition is not None and condition.status is Truth.TRUE)


def guards(facts: Facts) -> Iterator[Finding]:
    """Who stops a node's jobs when its agent hangs and the node lost touch."""
    for each in facts.nodes:
        if each.alive is not None and each.load is not None and each.load.unguarded:
            yield warn("guard", f"node/{each.name}", each.load.unguarded, "start mx-guard there")


def clocks(facts: Facts) -> Iterator[Finding]:
    """Samples that are too old or in the future are not acted on, and certificates begin and end by the clock."""
    heard = {each.name: each.clock for each in facts.nodes if each.clock is not None}
    for name, ahead in heard.items():
        if abs(ahead) < CLOCK_WARN:
            continue
        word = "ahead of" if ahead > 0 else "behind"
        text = f"its clock is {abs(ahead):.1f} s {word} this machine's"
        remedy = f"run an NTP client on {name} and here (chrony, systemd-timesyncd)"
        yield (fail if abs(ahead) >= CLOCK_FAIL else warn)("clocks", f"node/{name}", text, remedy)
    if heard and all(abs(ahead) < CLOCK_WARN for ahead in heard.values()):
        most = max(abs(ahead) for ahead in heard.values())
        yield fine("clocks", "nodes", f"{len(heard)} clocks are within {most:.1f} s of this machine's")


def criu_versions(facts: Facts) -> Iterator[Finding]:
    """Without criu a node moves nothing; with different ones an image of the newer may not be understood by the older."""
    found: dict[str, list[str]] = {}
    for each, alive in facts.heard:
        found.setdefault(alive.criu, []).append(each.name)
        version = parse_version(alive.criu if alive.criu.count(".") > 1 else f"{alive.criu}.0")
        if not alive.criu:
            yield fail(
                "criu", f"node/{each.name}", "criu does not work: no job can be moved", "see the agent's log; install criu 4.2"
            )
        elif version is not None and version < CRIU_LEAST:
            yield warn("criu", f"node/{each.name}", f"criu {alive.criu} is older than 4.2", "install criu 4.2 or later")
    working = {version: names for version, names in found.items() if version}
    if len(working) > 1:
        yield warn("criu", "nodes", f"versions differ: {_by_value(working)}", "run one image on all nodes: mxctl rollout")
    elif working:
        yield fine("criu", "nodes", f"criu {next(iter(working))} on {sum(map(len, working.values()))} nodes")


def criu_features(facts: Facts) -> Iterator[Finding]:
    """Ways of moving that some nodes have and others do not."""
    heard = [(each.name, set(alive.features)) for each, alive in facts.heard if alive.criu]
    for feature in sorted(set().union(*(features for _, features in heard))):
        without = [name for name, features in heard if feature not in features]
        if without:
            text = f"{feature} is not possible there, but elsewhere: jobs are moved there by other means"
            yield warn("criu", f"nodes {_names(without)}", text, "see the agents' logs for what is missing")


def processors(facts: Facts) -> Iterator[Finding]:
    """A job goes only where all is that its processor had."""
    heard = [(each.name, frozenset(alive.cpu_flags.split())) for each, alive in facts.heard if alive.cpu_flags]
    if len(heard) < 2:
        return
    everything = frozenset().union(*(flags for _, flags in heard))
    lacking: dict[frozenset[str], list[str]] = {}
    for name, flags in heard:
        if everything - flags:
            lacking.setdefault(everything - flags, []).append(name)
    for missing, names in lacking.items():
        text = f"their processors lack {_words(sorted(missing))}, which others have: jobs from there cannot come"
        yield warn(
            "cpus", f"nodes {_names(names)}", text, "hide it from all (kernel argument clearcpuid=), or keep these jobs apart"
        )
    if not lacking:
        yield fine("cpus", "nodes", f"{len(heard)} nodes have the same processor features")


def kernels(facts: Facts) -> Iterator[Finding]:
    """criu's images contain what one kernel showed; another may lack it."""
    found: dict[str, list[str]] = {}
    for each, alive in facts.heard:
        found.setdefault(alive.kernel, []).append(each.name)
    if len(found) > 1:
        yield warn("kernel", "nodes", f"releases differ: {_by_value(found)}", "run one image on all nodes: mxctl rollout")
    elif found:
        yield fine("kernel", "nodes", f"Linux {next(iter(found))} everywhere")


def sysctls(facts: Facts) -> Iterator[Finding]:
    """Limits that a job may have used up where it comes from."""
    before = 0
    for name in AT_LEAST:
        values = {each.name: int(value) for each, alive in facts.heard if (value := alive.system.sysctls.get(name, "")).isdigit()}
        low = [node for node, value in values.items() if value < max(values.values())]
        if low:
            text = f"{name} is {min(values.values())} there and {max(values.values())} elsewhere: a job may not fit when it comes"
            yield warn("sysctls", f"nodes {_names(low)}", text, f"sysctl -w {name}={max(values.values())}, in the image for good")
        before += bool(low)
    strict = [each.name for each, alive in facts.heard if alive.system.sysctls.get("vm.overcommit_memory") == "2"]
    if strict:
        text = "vm.overcommit_memory is 2: a job that only reserves much memory cannot be restored there"
        yield warn("sysctls", f"nodes {_names(strict)}", text, "sysctl -w vm.overcommit_memory=0")
    if not before and not strict and any(alive.system.sysctls for _, alive in facts.heard):
        yield fine("sysctls", "nodes", "the same limits everywhere")


def shared_mounts(facts: Facts) -> Iterator[Finding]:
    """/shared has to be one file system for all, and safe."""
    told = [(each.name, alive.system.shared) for each, alive in facts.heard if alive.system.shared.source]
    network = [(name, mount) for name, mount in told if mount.type.startswith("nfs")]
    bad = False
    for name, mount in network:
        words = mount.options.split(",")
        if NFS_VERSION in words:
            bad = True
            text = "/shared is mounted by NFS 4.2, with which nfs-ganesha has returned zeros for data"
            yield fail("nfs mounts", f"node/{name}", text, "mount it with vers=4.1")
        if "soft" in words or "softerr" in words:
            bad = True
            text = "/shared is mounted soft: jobs get errors, and lose data, when the server is away for a moment"
            yield fail("nfs mounts", f"node/{name}", text, "mount it with hard")
    sources = {mount.source for _, mount in network}
    if len(sources) > 1:
        bad = True
        yield fail(
            "nfs mounts", "nodes", f"/shared is not the same everywhere: {_words(sorted(sources))}", "mount one of them on all"
        )
    if told and not bad:
        kinds = _words(sorted({mount.type for _, mount in told}))
        yield fine("nfs mounts", "nodes", f"/shared is {kinds} on {len(told)} nodes")


def drift(facts: Facts) -> Iterator[Finding]:
    """Nodes that do not run what they should."""
    found = [(each.name, find_condition(each.node.status.conditions, IMAGE_DRIFT)) for each in facts.nodes]
    for name, condition in found:
        if condition is not None and condition.status is Truth.TRUE:
            yield warn("images", f"node/{name}", condition.message, "mxctl rollout node, or mxctl rollout image")


def machines(facts: Facts) -> Iterator[Finding]:
    """What machines that boot complained of, and those that wait for somebody."""
    for machine in facts.machines:
        if machine.problem:
            who = f"node/{machine.node}" if machine.node else f"machine {machine.mac}"
            yield warn("boot", who, machine.problem, "see its console, and mxctl describe node")


def node_certificates(facts: Facts) -> Iterator[Finding]:
    """Agents renew theirs after two thirds of its life; one that is about to end was not renewed."""
    ends = {}
    for record in facts.joins:
        if record.node is not None and record.certificates:
            ends[record.node] = max(each.until for each in record.certificates)
    for name, until in ends.items():
        days = (until - facts.now).total_seconds() / 86400
        if days < 0:
            yield fail(
                "certificates", f"node/{name}", f"its certificate ended {until:%F %R}", "mxctl token create, then mxctl join"
            )
        elif days < 5:
            text = f"its certificate ends in {days:.1f} days, and its agent did not renew it"
            yield warn("certificates", f"node/{name}", text, "is mx-join running? see the agent's log")
    if ends and all(until > facts.now for until in ends.values()):
        yield fine("certificates", "nodes", f"{len(ends)} are good, the first until {min(ends.values()):%F}")


def _by_value(found: dict[str, list[str]]) -> str:
    return "; ".join(f"{value or 'none'} on {_names(names)}" for value, names in sorted(found.items()))


def _names(names: list[str]) -> str:
    return _words(sorted(names), ",")


def _words(words: list[str], between: str = " ") -> str:
    more = f" and {len(words) - WORDS_SHOWN} more" if len(words) > WORDS_SHOWN else ""
    return between.join(words[:WORDS_SHOWN]) + more


CHECKS = (
    nodes_ready,
    guards,
    clocks,
    criu_versions,
    criu_features,
    processors,
    kernels,
    sysctls,
    shared_mounts,
    drift,
    machines,
    node_certificates,
)
