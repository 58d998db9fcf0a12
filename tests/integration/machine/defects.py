"""Defects to plant, one at a time, to see whether the state machine would find them: ``--plant NAME``.

Each takes away one of the things that the promises stand on."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from crds.placement import Placement, Role
from crds.report import Claim
from crds.states import DestinationStep, SourceStep
from nodeagent import arrive, decide, jobs, journal, moves, worker
from nodeagent.case import Case
from nodeagent.decide import Do, Relation
from nodeagent.journal import Record
from nodeagent.ledger import Ledger
from reconciler.controllers import conclusion, moving
from reconciler.controllers import job as job_controller
from reconciler.controllers.readiness import HEARD, Silence, has_fenced
from reconciler.world import World
from store.kv import Put, absent
from store.transaction import Transaction

Plant = Callable[[ExitStack], None]
DEFECTS: dict[str, Plant] = {}


def defect(plant: Plant) -> Plant:
    DEFECTS[plant.__name__.replace("_", "-")] = plant
    return plant


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    with ExitStack() as stack:
        if name is not None:
            DEFECTS[name](stack)
        yield


def _put(stack: ExitStack, where: Any, name: str, what: Any) -> None:
    stack.enter_context(patch.object(where, name, what))


@defect
def resume_without_asking(stack: ExitStack) -> None:
    """The source lets the job go on when the connection broke after everything was sent."""
    stack.enter_context(patch.dict(decide.SAME[Role.LEAVE], {SourceStep.SENT: Do.RESUME}))  # type: ignore[arg-type]


@defect
def sent_not_journalled(stack: ExitStack) -> None:
    """The source forgets to write down that everything is sent."""
    write = Case._write

    async def forgetful(self: Case, record: Record) -> None:
        if record.step == SourceStep.SENT:
            self.record = record
        else:
            await write(self, record)

    _put(stack, Case, "_write", forgetful)


@defect
def committed_not_journalled(stack: ExitStack) -> None:
    """The destination forgets to write down that it is about to commit."""
    write = Case._write

    async def forgetful(self: Case, record: Record) -> None:
        if record.step == DestinationStep.COMMITTING:
            self.record = record
        else:
            await write(self, record)

    _put(stack, Case, "_write", forgetful)


@defect
def go_before_commit(stack: ExitStack) -> None:
    """The destination lets the job run, then commits."""
    commit = arrive.commit

    async def hasty(case: Case) -> bool:
        if case.sandbox is not None:
            await case.sandbox.resume()
        return await commit(case)

    _put(stack, arrive, "commit", hasty)


@defect
def stale_placement(stack: ExitStack) -> None:
    """The destination commits without comparing that its placement still stands."""

    async def claim(self: Ledger, job: str, claim: Claim, placement: int) -> Claim | None:
        key = self._claim(job)
        result, found = await self._txn([absent(key)], [Put(key, claim.to_json())], [key])
        if result.succeeded:
            self._claims[job] = result.revision
            return claim
        return self._standing(job, claim, found[0])

    _put(stack, Ledger, "claim", claim)


@defect
def epochs_ignored(stack: ExitStack) -> None:
    """A placement of another epoch counts as the one that is known."""
    relation = decide.relation

    def careless(placement: Placement | None, record: Record) -> Relation:
        found = relation(placement, record)
        return Relation.SAME if found in (Relation.OLDER, Relation.NEWER) else found

    _put(stack, decide, "relation", careless)


@defect
def not_severed(stack: ExitStack) -> None:
    """Post-copy: the source does not kill its copy when the job runs at the destination."""

    async def serve(case: Case) -> None:
        if case.held.at != SourceStep.SERVING:
            await moves._say_left(case, SourceStep.SERVING)
        sandbox = await case.adopt()
        if sandbox is not None:
            await case.parts.hooks.at("leave.severed", case.held.copy_here)
            await moves._streamed(case, sandbox)
        await moves.left(case)

    _put(stack, moves, "serve", serve)
    stack.enter_context(patch.dict(worker._ACTIVITIES, {Do.SERVE: lambda case, _: serve(case)}))


@defect
def thaw_unconfirmed(stack: ExitStack) -> None:
    """A node that lost touch lets its jobs go on as soon as it is back, without looking whether they are still its own."""

    async def confirm(self: Ledger, job: str, placement: int) -> None:
        return None

    _put(stack, Ledger, "confirm", confirm)


@defect
def thaw_forgotten(stack: ExitStack) -> None:
    """What stands still because the node lost touch is treated as if it ran."""
    _put(stack, decide, "FENCED", {})


@defect
def call_off_without_claim(stack: ExitStack) -> None:
    """The reconciler calls moves off without comparing that no claim stands."""

    def careless(context: Any, move: moving.Move) -> Transaction:
        namespace, name = move.job.split("/")
        ends = [conclusion.keys.placement(node, namespace, name) for node in (move.order.source, move.order.destination)]
        transaction: Transaction = context.store.transaction().expect(*context.world.expect(ends[0]))
        return transaction

    _put(stack, conclusion, "_relying_on", careless)


@defect
def taken_back_early(stack: ExitStack) -> None:
    """A silent destination counts as fenced at once."""

    def hasty(world: World, node: str, job: str, absence: float) -> Silence:
        found = has_fenced(world, node, job, absence)
        return found if found == HEARD else Silence(True, "it is silent")

    _put(stack, conclusion, "has_fenced", hasty)
    _put(stack, job_controller, "has_fenced", hasty)


@defect
def activity_not_called_off(stack: ExitStack) -> None:
    """What was begun goes on, whatever the placement says by now."""
    _put(stack, worker.Worker, "_still_wanted", lambda *_: True)


@defect
def fetching_is_over(stack: ExitStack) -> None:
    """Post-copy: the move counts as over when the job runs, while its memory is on its way."""
    _put(stack, moving, "_is_fetching", lambda _: False)


@defect
def serving_is_left(stack: ExitStack) -> None:
    """Post-copy: a source that hands out memory counts as one that has nothing of the job any more."""
    _put(stack, moving, "_is_serving", lambda _: False)


@defect
def deleted_in_the_middle(stack: ExitStack) -> None:
    """A job that is deleted loses its placements while it is being moved."""
    _put(stack, job_controller, "_is_moving", lambda _: False)


@defect
def started_again(stack: ExitStack) -> None:
    """An agent that died while it started a job starts it once more."""
    start = jobs.start

    async def careless(case: Case, placed: jobs.Placed) -> None:
        if case.record is not None and case.record.at == journal.Stage.STARTING:
            await jobs._create_and_start(case)
        else:
            await start(case, placed)

    stack.enter_context(patch.dict(worker._PLACED, {Do.START: careless}))


@defect
def claim_not_removed(stack: ExitStack) -> None:
    """Claims of moves that are over stay."""

    async def remove_claim(self: Ledger, job: str) -> None:
        return None

    _put(stack, Ledger, "remove_claim", remove_claim)


@defect
def killed_before_said(stack: ExitStack) -> None:
    """The source kills its frozen copy first, and says so then."""
    say = moves._say_left

    async def hasty(case: Case, step: SourceStep) -> None:
        if step == SourceStep.GONE:
            await case.parts.engine.forget(case.held.copy_here)
        await say(case, step)

    _put(stack, moves, "_say_left", hasty)
