"""How far a machine's boot is, and why it is stuck. Pure: what was heard of it, what time it is -> a verdict in words."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from crds.machine import STAGES, BootTimeline

PATIENCE = {"dhcp": 60.0, "ipxe": 60.0, "kernel": 180.0, "root": 180.0}
"""Seconds after a stage in which the next one should have come; slow machines and busy heads included."""
_NEXT = {
    "dhcp": "it got an address; iPXE asks next what to boot",
    "ipxe": "it was told what to boot; it fetches its kernel next",
    "kernel": "it fetched its kernel, which mounts its root next",
    "root": "its root is mounted; its agent is heard next",
}
_STUCK = {
    "dhcp": "it got an address but never asked what to boot: do TFTP (udp 69) and HTTP of the head reach it, and does it boot from"
    " the network first?",
    "ipxe": "it was told what to boot but did not fetch its kernel: look at its screen",
    "kernel": "it fetched its kernel but has not mounted its root: look at its console; is NFS (tcp 2049) of the head reachable?",
    "root": "its root is mounted but its agent was not heard: look at its console, and at its agent's log on the head",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``booted`` None: not yet, and nothing is wrong so far. ``look_again`` in seconds: when patience ends if nothing happens."""

    booted: bool | None
    reason: str
    message: str
    look_again: float | None = None


def judge(boot: BootTimeline, problem: str, now: datetime) -> Verdict:
    """The verdict on a boot of which something was heard."""
    if boot.stage == "agent":
        return Verdict(True, "Booted", f"from its first sign to its agent in {_seconds(boot):.1f} s")
    if problem:
        return Verdict(False, "Failed", problem)
    since = getattr(boot, boot.stage) if boot.stage else None
    if since is None:
        return Verdict(None, "Seen", "the head has seen it, but not in a boot")
    left = PATIENCE[boot.stage] - (now - since).total_seconds()
    if left <= 0:
        return Verdict(False, f"StuckAfter{boot.stage.capitalize()}", _STUCK[boot.stage])
    return Verdict(None, "Booting", _NEXT[boot.stage], left)


def with_agent(boot: BootTimeline, before: BootTimeline | None, alive_since: datetime | None) -> BootTimeline:
    """The timeline with the moment its agent was heard: now, or before in the same boot. ``alive_since`` None: not heard now.

    A heartbeat that began before this boot's kernel ran is that of the boot before. Clocks of node and head may differ a little.
    """
    if boot.root is None:
        return boot
    if alive_since is not None and alive_since > boot.root - _CLOCKS:
        return boot.model_copy(update={"agent": max(alive_since, boot.root)})
    if before is not None and before.agent is not None and before.root == boot.root:
        return boot.model_copy(update={"agent": before.agent})
    return boot


_CLOCKS = timedelta(seconds=5)


def _seconds(boot: BootTimeline) -> float:
    times = [time for stage in STAGES if (time := getattr(boot, stage)) is not None]
    return float((max(times) - min(times)).total_seconds())
