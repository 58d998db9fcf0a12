"""What tests of moves between two agents share: where the ends are, and what has to be true afterwards."""

from crds.report import JobReport, ReportPhase, Verdict
from store.memory import MemoryKV
from tests.integration.agents import Cluster, Node, until

SOURCE, DESTINATION = "n1", "n2"


def memory(node: Node) -> MemoryKV:
    assert isinstance(node.kv, MemoryKV)
    return node.kv


async def report_of(cluster: Cluster, node: str, epoch: int) -> JobReport:
    """The Running report of that epoch, waited for."""

    async def there() -> bool:
        report = await cluster.report(node, "w")
        return report is not None and report.phase == ReportPhase.RUNNING and report.epoch == epoch

    await until(there, f"{node} to report Running at epoch {epoch}")
    report = await cluster.report(node, "w")
    assert report is not None
    return report


async def check_moved(cluster: Cluster, uid: str, epoch: int = 2) -> JobReport:
    """It runs at the destination; nothing else is left of the move."""
    await cluster.only_on(uid, DESTINATION)
    report = await report_of(cluster, DESTINATION, epoch)
    await cluster.reported(SOURCE, "w", None)
    await no_claim(cluster)
    await cluster.no_images()
    return report


async def check_stayed(cluster: Cluster, uid: str, epoch: int = 3) -> JobReport:
    """It runs at the source, under the epoch of the placement that ended the move; nothing else is left of it."""
    await cluster.only_on(uid, SOURCE)
    report = await report_of(cluster, SOURCE, epoch)
    await cluster.reported(DESTINATION, "w", None)
    await no_claim(cluster)
    await cluster.no_images()
    assert report.move is not None and report.move.ok is False
    return report


async def no_claim(cluster: Cluster) -> None:
    async def gone() -> bool:
        return await cluster.claim(DESTINATION, "w") is None

    await until(gone, "the claim to be removed")


async def refusal_of(cluster: Cluster) -> str:
    """The reason the destination gives, once it does."""
    reasons = []

    async def refused() -> bool:
        claim = await cluster.claim(DESTINATION, "w")
        if claim is not None and claim.verdict == Verdict.REFUSED:
            reasons.append(claim.reason)
        return bool(reasons)

    await until(refused, "the refusal")
    return reasons[0]


async def seen(node: Node, moment: str) -> bool:
    return moment in node.moments.seen
