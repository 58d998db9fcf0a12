"""Checks of etcd and of who leads: the version with its known holes, its alarms, its size, whether it asks who somebody is."""

import re
from collections.abc import Iterator

from clip.doctor.model import Facts, Finding, fail, fine, warn

NEWEST = "use etcd 3.5.33 or 3.6.14, or later"
SAFE_TXN = {(3, 4): 44, (3, 5): 30, (3, 6): 11}
"""From this patch release on no transaction gets round the rights of nodes (CVE-2026-33343, CVE-2026-33413, CVE-2026-44283)."""
SAFE_WATCH = {(3, 5): 33, (3, 6): 14}
"""From here on a watch ends where the right to read ends (GHSA-xg4h-6gfc-h4m8)."""
LOSES_DATA = ((3, 5, 0), (3, 5, 2))
SIZE_WARN, SIZE_FAIL = 1 << 30, 2 << 30  # bytes; 2 GiB is where etcd stops to take writes


def parse_version(text: str) -> tuple[int, int, int] | None:
    """(3, 5, 30) of "3.5.30"; None of anything else."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def holes(version: tuple[int, int, int]) -> list[tuple[bool, str]]:
    """What is known to be wrong with this version: whether it is grave, and what it is."""
    found = []
    if LOSES_DATA[0] <= version <= LOSES_DATA[1]:
        found.append((True, "it can lose what was written when it is killed"))
    if _before(version, SAFE_TXN):
        found.append(
            (True, "a node's certificate reads and writes all keys, by a nested transaction (CVE-2026-33343, CVE-2026-44283)")
        )
    elif _before(version, SAFE_WATCH):
        found.append((False, "a node's certificate can watch keys behind those it may read (GHSA-xg4h-6gfc-h4m8)"))
    return found


def _before(version: tuple[int, int, int], safe: dict[tuple[int, int], int]) -> bool:
    series = version[:2]
    return version[2] < safe[series] if series in safe else series < min(safe)


def etcd_answers(facts: Facts) -> Iterator[Finding]:
    """Without it nothing else of the cluster is known."""
    if facts.etcd.error:
        yield fail("etcd", "etcd", f"does not answer: {facts.etcd.error}", "start it, then look again; jobs go on meanwhile")


def etcd_version(facts: Facts) -> Iterator[Finding]:
    """Known holes."""
    if facts.etcd.error:
        return
    version = parse_version(facts.etcd.version)
    if version is None:
        yield warn("etcd", "etcd", f'its version "{facts.etcd.version}" cannot be read', "see mxctl version")
        return
    found = holes(version)
    if not found:
        yield fine("etcd", "etcd", f"version {facts.etcd.version}")
    for grave, what in found:
        yield (fail if grave else warn)("etcd", "etcd", f"version {facts.etcd.version}: {what}", NEWEST)


def etcd_health(facts: Facts) -> Iterator[Finding]:
    """Alarms and size."""
    for error in facts.etcd.errors:
        yield fail("etcd", "etcd", error, "see etcdctl alarm list; compact, defragment and disarm")
    if facts.etcd.error or facts.etcd.errors:
        return
    size = f"its database has {facts.etcd.size / 2**20:.1f} MiB"
    if facts.etcd.size >= SIZE_FAIL:
        yield fail("etcd", "etcd", f"{size}: it takes no more writes at its limit", "etcdctl defrag")
    elif facts.etcd.size >= SIZE_WARN:
        yield warn("etcd", "etcd", f"{size}, and takes no writes from 2 GiB on", "etcdctl defrag")
    else:
        yield fine("etcd", "etcd", size)


def etcd_rights(facts: Facts) -> Iterator[Finding]:
    """Whether nodes are held to their own keys."""
    if facts.etcd.secured is False:
        yield fail("etcd", "etcd", "it asks nobody who he is: whoever reaches it may do everything", "mxctl head init secures it")
    elif facts.etcd.secured:
        yield fine("etcd", "etcd", "everybody has to show a certificate and has rights of his own")


def leadership(facts: Facts) -> Iterator[Finding]:
    """Somebody has to decide."""
    if facts.etcd.error:
        return
    if facts.leader is None:
        yield fail("reconciler", "reconciler", "none is leading: nothing is decided", "start mx-reconciler; see its log")
    else:
        yield fine("reconciler", "reconciler", f"{facts.leader} leads")


CHECKS = (etcd_answers, etcd_version, etcd_health, etcd_rights, leadership)
