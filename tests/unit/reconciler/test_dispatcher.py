"""What follows from each outcome, seen from outside: when a failing controller runs again, and what people are told."""

from collections.abc import Iterator

import pytest

from crds import keys
from crds.job import Job
from crds.meta import find_condition
from reconciler.context import Context
from reconciler.runtime.declare import Watch, controller
from reconciler.runtime.outcome import DONE, Again, Retryable, Terminal
from reconciler.world import Delta, World, work_key
from store.errors import Conflict, Invalid, NotFound, Unavailable
from store.kv import Delete

from .house import House


class Script:
    """A controller that does what it is told, one outcome an attempt, and notes when it was asked."""

    def __init__(self, *outcomes: Again | Exception) -> None:
        self.outcomes: Iterator[Again | Exception] = iter(outcomes)
        self.times: list[float] = []

        @controller("script", kind=Job, start=_jobs, watches=[Watch("kinds/jobs/", _own)])
        async def reconcile(context: Context, _: str) -> Again:
            self.times.append(round(context.clock.monotonic(), 3))
            outcome = next(self.outcomes, DONE)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

        self.controller = reconcile


def _jobs(world: World) -> list[str]:
    return [work_key(job) for job in world.all(Job)]


def _own(delta: Delta, _: World) -> list[str]:
    return ["/".join(delta.parts[2:])]


async def times(script: Script, seconds: float = 1000) -> list[float]:
    async with House(controllers=(script.controller,)) as house:
        await house.run("w")
        await house.advance(seconds)
    return script.times


async def test_done_runs_once() -> None:
    assert await times(Script(DONE)) == [0]


async def test_again_runs_after_its_time() -> None:
    assert await times(Script(Again(7), Again(2), DONE)) == [0, 7, 9]


async def test_retryable_with_a_pause_of_its_own() -> None:
    assert await times(Script(Retryable("not yet", 3), Retryable("not yet", 3))) == [0, 3, 6]


async def test_failures_come_ever_more_slowly_and_success_forgets_them() -> None:
    bug = ValueError("bug")
    assert await times(Script(bug, bug, bug, Again(100), bug, DONE)) == [0, 0.5, 1.5, 3.5, 103.5, 104.0]


async def test_pauses_have_a_limit() -> None:
    found = await times(Script(*[Retryable("no")] * 12), seconds=10_000)
    assert found[-1] - found[-2] == 60


@pytest.mark.parametrize("error", [Conflict("changed"), NotFound("gone")])
async def test_who_was_beaten_tries_at_once(error: Exception) -> None:
    assert await times(Script(error, error, error)) == [0, 0.02, 0.06, 0.14]


@pytest.mark.parametrize("error", [Unavailable("no answer"), TimeoutError()])
async def test_an_outage_is_waited_for_at_an_even_pace(error: Exception) -> None:
    found = await times(Script(*[error] * 10))
    assert found[1] == 0.25 and found[-1] - found[-2] == 4


@pytest.mark.parametrize("error", [Terminal("Hopeless", "never works"), Invalid("never works")])
async def test_terminal_waits_for_a_change_and_is_told_on_the_object(error: Exception) -> None:
    script = Script(error, error, DONE)
    async with House(controllers=(script.controller,)) as house:
        await house.run("w")
        await house.advance(1000)
        condition = find_condition((await house.job("w")).conditions, "Reconciled")
        assert condition is not None and condition.message == "never works"
        assert script.times == [0, 0]  # once more because its own condition changed the object
        assert [event for event in await house.events() if event.endswith(" w")] == [f"{condition.reason} w"]
        await house.change(Job, "w", lambda job: job.metadata.labels.update(a="b"))
        await house.settle()
        assert find_condition((await house.job("w")).conditions, "Reconciled") is None


async def test_a_bug_is_told_and_does_not_stop_the_others() -> None:
    bad, good = Script(*[ZeroDivisionError("oops")] * 3), Script()
    async with House(controllers=(bad.controller, good.controller)) as house:
        await house.run("w")
        await house.settle()
        await house.run("v")
        await house.settle()
        assert len(good.times) == 2
        assert "InternalError w" in await house.events()


async def test_a_deposed_leader_stops() -> None:
    async def write(context: Context, _: str) -> Again:
        await context.store.change_status(Job, "w", "default", lambda job: setattr(job.status, "message", "x"))
        return DONE

    declared = controller("writer", start=_jobs, watches=[Watch("kinds/jobs/", _own)])(write)
    async with House(controllers=(declared,)) as house:
        await house.kv.txn([], [Delete(keys.LEADER)])
        await house.run("w")
        with pytest.raises(AssertionError, match="has stopped"):
            await house.settle()
        assert (await house.job("w")).message == ""
