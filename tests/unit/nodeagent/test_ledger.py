"""Reports and claims: each write carries the session, is done once, and its unknown outcome is found out."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from crds import keys
from crds.load import Alive
from crds.report import Claim, JobReport, ReportPhase, Verdict
from nodeagent.heartbeat import Heartbeat
from nodeagent.ledger import Ledger, refusal
from store.errors import Conflict, Unavailable
from store.kv import Delete, Put
from store.memory import MemoryKV

JOB = "default/w"
REPORT = keys.report("n1", "default", "w")
CLAIM = keys.claim("n1", "default", "w")
PLACEMENT = keys.placement("n1", "default", "w")


def alive() -> Alive:
    return Alive(boot_id="b", agent_version="1", address="a:1", since=datetime(2026, 1, 1, tzinfo=UTC))


def report(phase: ReportPhase = ReportPhase.RUNNING, epoch: int = 1) -> JobReport:
    return JobReport(uid="u", epoch=epoch, phase=phase, boot_id="b")


@pytest.fixture
def kv() -> MemoryKV:
    return MemoryKV(clock=time.monotonic)


@pytest.fixture
async def heartbeat(kv: MemoryKV) -> AsyncIterator[Heartbeat]:
    made = Heartbeat(kv, "n1", alive, ttl=15)
    task = asyncio.create_task(made.run())
    await asyncio.wait_for(made.standing.wait(), 5)
    yield made
    task.cancel()
    await asyncio.wait({task})


@pytest.fixture
async def ledger(kv: MemoryKV, heartbeat: Heartbeat) -> Ledger:
    made = Ledger(kv.client(), "n1", heartbeat)
    await made.load()
    return made


def client(ledger: Ledger) -> MemoryKV:
    found = ledger._kv
    assert isinstance(found, MemoryKV)
    return found


async def placed(kv: MemoryKV) -> int:
    return (await kv.txn([], [Put(PLACEMENT, b"{}")])).revision


async def test_writes_a_difference_once(kv: MemoryKV, ledger: Ledger) -> None:
    await ledger.put(JOB, report())
    revision = kv.server.revision
    await ledger.put(JOB, report())
    assert kv.server.revision == revision
    await ledger.put(JOB, report(ReportPhase.SUCCEEDED))
    kept = await kv.get(REPORT)
    assert kept is not None and JobReport.model_validate_json(kept.value).phase == ReportPhase.SUCCEEDED


async def test_a_report_whose_answer_was_lost_is_not_lost(kv: MemoryKV, ledger: Ledger) -> None:
    client(ledger).fail_next("txn", applied=True)
    with pytest.raises(Unavailable):
        await ledger.put(JOB, report())
    with pytest.raises(Conflict):
        await ledger.put(JOB, report(ReportPhase.SUCCEEDED))
    await ledger.put(JOB, report(ReportPhase.SUCCEEDED))
    kept = await kv.get(REPORT)
    assert kept is not None and JobReport.model_validate_json(kept.value).phase == ReportPhase.SUCCEEDED


async def test_nothing_is_written_without_a_session(kv: MemoryKV, ledger: Ledger, heartbeat: Heartbeat) -> None:
    heartbeat.fenced()
    with pytest.raises(Unavailable, match="no session"):
        await ledger.put(JOB, report())
    assert await kv.get(REPORT) is None


async def test_a_second_agent_of_the_node_fences_the_first(kv: MemoryKV, ledger: Ledger, heartbeat: Heartbeat) -> None:
    await kv.txn([], [Put(keys.alive("n1"), b"another")])
    with pytest.raises(Unavailable, match="session is over"):
        await ledger.put(JOB, report())
    assert await kv.get(REPORT) is None
    with pytest.raises(Unavailable):
        heartbeat.guard()


async def test_the_intent_is_written_once(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    assert await ledger.create(JOB, report(ReportPhase.STARTING), revision)
    assert not await ledger.create(JOB, report(ReportPhase.STARTING), revision)


async def test_no_intent_for_a_placement_that_changed(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    await placed(kv)
    with pytest.raises(Conflict, match="changed"):
        await ledger.create(JOB, report(ReportPhase.STARTING), revision)
    assert await kv.get(REPORT) is None


ACCEPTED = Claim(uid="u", epoch=2, verdict=Verdict.ACCEPTED)
REFUSED = refusal("u", 2, "no room")


@pytest.mark.parametrize(("first", "second"), [(ACCEPTED, REFUSED), (REFUSED, ACCEPTED), (ACCEPTED, ACCEPTED)])
async def test_the_first_claim_stands(kv: MemoryKV, ledger: Ledger, first: Claim, second: Claim) -> None:
    revision = await placed(kv)
    assert await ledger.claim(JOB, first, revision) == first
    assert await ledger.claim(JOB, second, revision) == first
    assert await ledger.standing_claim(JOB) == first


@pytest.mark.parametrize("applied", [True, False])
async def test_an_unknown_claim_is_found_out_by_asking_again(kv: MemoryKV, ledger: Ledger, applied: bool) -> None:
    revision = await placed(kv)
    client(ledger).fail_next("txn", applied=applied)
    with pytest.raises(Unavailable):
        await ledger.claim(JOB, ACCEPTED, revision)
    assert await ledger.claim(JOB, ACCEPTED, revision) == ACCEPTED


async def test_no_claim_once_the_placement_changed(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    await kv.txn([], [Delete(PLACEMENT)])
    assert await ledger.claim(JOB, ACCEPTED, revision) is None
    assert await kv.get(CLAIM) is None


async def test_a_claim_of_another_epoch_is_in_the_way(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    await ledger.claim(JOB, ACCEPTED, revision)
    with pytest.raises(Conflict, match="stands in the way"):
        await ledger.claim(JOB, Claim(uid="u", epoch=4, verdict=Verdict.ACCEPTED), revision)


async def test_what_cannot_be_read_still_counts_as_a_report(kv: MemoryKV, ledger: Ledger) -> None:
    await kv.txn([], [Put(REPORT, b"{broken")])
    await ledger.load()
    stored = ledger.stored(JOB)
    assert stored is not None and stored.report is None


async def test_removes_report_and_claim(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    await ledger.put(JOB, report())
    await ledger.claim(JOB, ACCEPTED, revision)
    await ledger.remove(JOB)
    assert (await kv.get(REPORT), await kv.get(CLAIM), ledger.known()) == (None, None, set())


async def test_removes_what_may_stand_after_a_lost_answer(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    for _ in range(2):
        client(ledger).fail_next("txn", applied=True)
    with pytest.raises(Unavailable):
        await ledger.claim(JOB, REFUSED, revision)
    with pytest.raises(Unavailable):
        await ledger.put(JOB, report())
    assert ledger.known() == set()
    await ledger.remove(JOB)
    assert (await kv.get(REPORT), await kv.get(CLAIM)) == (None, None)


async def test_removes_a_claim_that_was_given_up_while_its_answer_was_under_way(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    client(ledger).answer = 5.0
    claiming = asyncio.create_task(ledger.claim(JOB, REFUSED, revision))
    for _ in range(5):
        await asyncio.sleep(0)
    assert await kv.get(CLAIM) is not None
    claiming.cancel()
    await asyncio.wait({claiming})
    client(ledger).answer = 0.0
    await ledger.remove_claim(JOB)
    assert await kv.get(CLAIM) is None


async def test_a_removal_that_comes_through_late_takes_nothing_new_away(kv: MemoryKV, ledger: Ledger) -> None:
    await ledger.claim(JOB, REFUSED, await placed(kv))
    client(ledger).fail_next("txn", late=0.05)
    with pytest.raises(Unavailable):
        await ledger.remove_claim(JOB)
    await ledger.remove_claim(JOB)
    await ledger.claim(JOB, ACCEPTED, await placed(kv))
    await asyncio.sleep(0.1)
    assert await kv.get(CLAIM) is not None


async def test_reading_all_anew_forgets_nothing_that_was_written_meanwhile(kv: MemoryKV, ledger: Ledger) -> None:
    revision = await placed(kv)
    client(ledger).answer = 0.05
    loading = asyncio.create_task(ledger.load())
    await asyncio.sleep(0.06)  # both lists were answered by the server, the second answer is under way
    client(ledger).answer = 0.0
    await ledger.put(JOB, report())
    await ledger.claim(JOB, ACCEPTED, revision)
    await loading
    await ledger.remove(JOB)
    assert (await kv.get(REPORT), await kv.get(CLAIM)) == (None, None)


async def test_a_new_session_begins_after_a_lost_lease(kv: MemoryKV, heartbeat: Heartbeat) -> None:
    begun = asyncio.Event()
    heartbeat.begun = begun.set
    old = heartbeat.guard()
    heartbeat.fenced()
    async with asyncio.timeout(5):
        await begun.wait()
    assert heartbeat.guard().number > old.number
