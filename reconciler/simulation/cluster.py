"""The simulated cluster: events in the order of their times, decisions in between.

A job that moves runs on where it is, then stands, then runs where it went while the rest of it follows; all the while it counts
as under way. From one event to the next all rates are constant, so nothing is approximated.
"""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from reconciler.planning import undone
from reconciler.planning.types import JobView, MoveCost, MoveView, NodeView, PlacementRequest, Plan, PlannedMove, Snapshot
from reconciler.simulation.machine import Machine, Task
from reconciler.simulation.observation import Sampler
from reconciler.simulation.outcome import ANNOUNCED, Moved, Outcome
from reconciler.simulation.work import NEVER, Physics, Work

Decide = Callable[[Snapshot], Plan]
Place = Callable[[Snapshot, PlacementRequest], str | None]
"""None: no node has room, the job waits."""
QUIET = 60.0
"""Seconds without an event after which nothing is decided any more while no core has more than one task: nothing could change."""
PATIENCE = (1.5, 10.0)
"""A patient run: when a plan was empty and nothing happened since, the next pause is so many times longer, to so many seconds."""
ENDLESS = 1e7
"""Virtual seconds after which a run is given up: its jobs starve."""


class Endless(RuntimeError):  # noqa: N818 - named after what happened
    """Some jobs never end; the text names one."""


class _Move:
    """A move under way."""

    __slots__ = ("held", "index", "ok", "plan", "step")

    def __init__(self, plan: PlannedMove, ok: bool, index: int) -> None:
        self.plan, self.ok, self.index = plan, ok, index
        self.step = 0
        self.held = 0.0
        """Bytes that the job still takes on the node it left."""


class Simulation:
    """``decide`` is asked every ``interval`` seconds, ``place`` for each job that names no node.

    A ``patient`` run asks less often while nothing happens: several times quicker, and what only time changes comes a little later.
    """

    def __init__(
        self,
        nodes: Sequence[NodeView],
        works: Sequence[Work],
        decide: Decide,
        place: Place,
        *,
        physics: Physics | None = None,
        interval: float = 2.0,
        seed: int = 0,
        trace: bool = False,
        patient: bool = False,
        progress: Callable[[int], None] = lambda ended: None,
    ) -> None:
        self.physics = physics or Physics()
        self.machines = {node.name: Machine(node, self.physics) for node in nodes}
        self.coming = sorted(works, key=lambda work: (work.arrival, work.name), reverse=True)
        self.decide, self.place, self.interval, self.progress = decide, place, interval, progress
        self.random = Random(seed)
        self.sampler = Sampler(self.physics, self.random)
        self.where: dict[str, tuple[Machine, Task]] = {}
        self.waiting: list[Work] = []
        self.moving: dict[str, _Move] = {}
        self.now = 0.0
        self.outcome = Outcome()
        self._steps: list[tuple[float, int, str]] = []
        self._count = 0
        self._trace = trace
        self._patient, self._pause = patient, interval
        self._restless = self._considered = 0.0
        self._news = 0.0
        self._made: dict[str, list[undone.Step]] = {}
        freeze = self.physics.move.freeze
        self._cost = MoveCost(freeze.fixed, min(freeze.bandwidth, 1e15))

    def run(self) -> Outcome:
        """Until the last job has ended. Raises Endless when some never do."""
        tick = sample = 0.0
        while self.where or self.coming or self.waiting:
            now = max(self.now, min(self._next(), tick))
            if now > ENDLESS:
                raise Endless(
                    f"{next(iter(self.where or [self.waiting[0].name]))} has not ended after {ENDLESS:g} s: is there CPU for it?"
                )
            self._happen(now)
            if now >= sample and (self.physics.stale or now >= tick):
                self._advance(now)
                self.sampler.take(self.machines, now)
                sample = now + self.physics.sample_every
            if now >= tick:
                tick = max(tick + self._pause, now) if self._consider() else max(tick + self.interval, self._next())
            elif self._patient and self._restless > self._considered:
                tick = min(tick, max(self._considered + self.interval, now))
        return self.outcome

    def _next(self) -> float:
        """When something happens by itself."""
        arrives = self.coming[-1].arrival if self.coming else NEVER
        steps = self._steps[0][0] if self._steps else NEVER
        return min(arrives, steps, min(machine.next for machine in self.machines.values()))

    def _advance(self, now: float) -> None:
        for machine in self.machines.values():
            machine.advance(now)

    def _happen(self, now: float) -> None:
        """All that is due: ends, arrivals, steps of moves."""
        self.now = now
        changed: set[str] = set()
        for name, machine in self.machines.items():
            if machine.next <= now:
                changed.add(name)
        while self._steps and self._steps[0][0] <= now:
            changed |= self._step(heapq.heappop(self._steps)[2])
        for name in changed:
            self._settle(self.machines[name])
        while self.coming and self.coming[-1].arrival <= now:
            self._arrive(self.coming.pop())

    def _settle(self, machine: Machine) -> None:
        machine.advance(self.now)
        ended = machine.settle()
        for task in ended:
            name = task.work.name
            self.outcome.ends[name] = self.now
            del self.where[name]
            self.progress(len(self.outcome.ends))
        if ended:
            self._restless = self._news = self.now
            self._try_waiting()
        if self._trace:
            loads = self.outcome.loads.setdefault(machine.view.name, [])
            load = machine.demand() / machine.view.cpu_capacity
            if not loads or loads[-1][1] != load:
                loads.append((self.now, load))

    # arrivals

    def _arrive(self, work: Work) -> None:
        self._restless = self.now
        if not self._start(work):
            self.waiting.append(work)

    def _try_waiting(self) -> None:
        self.waiting = [work for work in self.waiting if not self._start(work)]

    def _start(self, work: Work) -> bool:
        node = work.node or self.place(self.snapshot(), _request(work))
        if node is None:
            return False
        machine = self.machines[node]
        machine.advance(self.now)
        task = Task(work, work.cpu_seconds, self.now, float(work.memory), until_sleep=work.busy, seen=float(work.tasks))
        machine.tasks.append(task)
        self.where[work.name] = machine, task
        self.outcome.starts[work.name] = self._news = self.now
        self._settle(machine)
        return True

    # decisions

    def _consider(self) -> bool:
        """Decides, unless nothing could come of it: then False."""
        if self.waiting:
            self._try_waiting()
        if self.waiting and not self.where and not self.coming:
            raise Endless(f"{self.waiting[0].name} never starts: no node takes it")
        if not self.where or (self.now - self._restless > QUIET and self._at_rest()):
            return False
        self._advance(self.now)
        self.outcome.decisions += 1
        plan = self.decide(self.snapshot())
        quiet = self._patient and not plan.moves and self._restless <= self._considered
        self._pause = max(self.interval, min(self._pause * PATIENCE[0], PATIENCE[1])) if quiet else self.interval
        self._considered = self.now
        for planned in plan.moves:
            self._begin(planned)
        return True

    def _at_rest(self) -> bool:
        return not self.moving and not self.waiting and all(m.demand() <= m.view.cpu_capacity for m in self.machines.values())

    def snapshot(self) -> Snapshot:
        """The cluster as it is known now. Where jobs are is known at once; what they use, as late as samples are."""
        self._advance(self.now)
        fresh = not self.physics.stale and not self.physics.noise and not self.physics.zeroes
        if fresh:
            self.sampler.take(self.machines, self.now)
        jobs = tuple(self._view(name, machine, task) for name, (machine, task) in self.where.items())
        moves = tuple(
            MoveView(key(name), move.plan.source, move.plan.destination, move.plan.cause) for name, move in self.moving.items()
        )
        nodes = tuple(self.sampler.view(machine, self.now) for machine in self.machines.values())
        return Snapshot(nodes, jobs, moves, self._cost, pending=tuple(_request(work) for work in self.waiting))

    def _view(self, name: str, machine: Machine, task: Task) -> JobView:
        sample = self.sampler.latest(machine.view.name)
        demand, memory = sample.jobs.get(name, (float(task.work.tasks), task.work.memory)) if sample else (1.0, task.work.memory)
        moving, made = name in self.moving, self._made.get(name, ())
        return JobView(
            key=key(name),
            node=machine.view.name,
            cpu_demand=demand,
            memory=memory,
            resident_for=self.now - task.since,
            age=self.now - self.outcome.starts[name],
            movable=not moving,
            why_not_movable="it is being moved already" if moving else "",
            since_failed_move=None if task.failed is None else self.now - task.failed,
            failed_moves=task.failures,
            left=undone.left_lately(made, self._news, self.now),
            attained=task.attained,
            priority=task.work.priority,
        )

    # moves

    def _begin(self, planned: PlannedMove) -> None:
        name = planned.job.partition("/")[2]
        if name not in self.where or name in self.moving or self.where[name][0].view.name != planned.source:
            return
        self._restless = self.now
        task = self.where[name][1]
        ok = not (self.physics.move.failures and self.random.random() < self.physics.move.failures)
        self.moving[name] = _Move(planned, ok, len(self.outcome.moves))
        self.outcome.moves.append(
            Moved(self.now, name, planned.source, planned.destination, NEVER, ok, planned.cause, planned.reason)
        )
        self._after(name, self.physics.move.before.seconds(task.memory))

    def _after(self, name: str, seconds: float) -> None:
        self._count += 1
        heapq.heappush(self._steps, (self.now + seconds, self._count, name))

    def _step(self, name: str) -> set[str]:
        """The next part of the move of this job; returns the nodes that changed."""
        move, model = self.moving[name], self.physics.move
        if name not in self.where:  # it ended while it still ran where it was, or while its memory followed
            return self._finish(name, move)
        machine, task = self.where[name]
        machine.advance(self.now)
        move.step += 1
        if move.step == 1:
            freeze = model.freeze.seconds(task.memory)
            task.frozen = True
            self.outcome.frozen += freeze
            self._after(name, freeze)
            return {machine.view.name}
        if move.step == 3:
            return self._finish(name, move)
        task.frozen = False
        if not move.ok:
            task.failed, task.failures = self.now, task.failures + 1
            return self._finish(name, move)
        task.failed, task.failures = None, 0
        after = model.after.seconds(task.memory)
        self._transfer(name, machine, task, move, after > 0)
        ends = (move.plan.source, move.plan.destination)
        self._made.setdefault(name, []).append(undone.Step(self.now, name, *ends, move.plan.cause in ANNOUNCED))
        self._after(name, after)
        return {move.plan.source, move.plan.destination}

    def _transfer(self, name: str, machine: Machine, task: Task, move: _Move, hold: bool) -> None:
        there = self.machines[move.plan.destination]
        there.advance(self.now)
        machine.tasks.remove(task)
        move.held = task.memory if hold else 0.0
        machine.held += move.held
        there.tasks.append(task)
        task.since = self.now
        self.where[name] = there, task

    def _finish(self, name: str, move: _Move) -> set[str]:
        del self.moving[name]
        self._restless = self.now
        self.outcome.moves[move.index] = replace(self.outcome.moves[move.index], end=self.now)
        source = self.machines[move.plan.source]
        source.advance(self.now)
        source.held -= move.held
        return {move.plan.source}


def key(name: str) -> str:
    """A job's key as planning knows it."""
    return f"default/{name}"


def _request(work: Work) -> PlacementRequest:
    return PlacementRequest(key(work.name), float(work.tasks), work.memory, node=work.node, priority=work.priority)
