"""Rotation: more equal jobs than even loads allow change places, so that they end together instead of some long after the others.

With 17 equal jobs on 16 nodes two share a node; no move evens that out, it only makes two others share. Left alone, the two take
twice as long (or half as long again, if they part when a node falls idle). If everybody shares for an equal time, all end at 17/16
of the time alone: no schedule ends sooner. So those that had least CPU are helped first (least attained service; Nuyens, Wierman:
"The foreground-background queue: a survey", 2008): of a node that has one job more than another, the job that had most goes to
where jobs had still more. Those that stay then run as fast as those there did; the mover runs no slower than before, and only it
stands still for a moment.

It goes on only where it pays: what those that are helped are behind must exceed a quantum, which is

- ``FREEZES`` times the freeze of the mover, so that a mover loses less than a tenth of what others gain;
- ``SHARE`` of what they have had: of unknown life times that is what they expect to go on for, so that the delay that is left at
  the end is a small part of it, and jobs of hours change places every few minutes only;
- ``minResidency``.

With aged time-sharing the nodes themselves let those go first that had less. There only jobs that began together (``TOGETHER``)
change places, so that they end together; among others it would only trade one job's turn for another's (simulated: 1 to 3 % more
slowdown for twice as many moves; with fair sharing it spares as much).

Each move lets the CPU go to jobs that had less of it, by the quantum at least, so with nothing else happening it ends by itself.
"""

import numpy as np

from crds.balancepolicy import Goal, Rotation, TimeSharing
from reconciler.planning.draft import Draft
from reconciler.planning.picture import Bools, Floats, Ints, floats
from reconciler.planning.types import Cause
from reconciler.planning.worth import IDLE, freezes

FREEZES = 10.0
SHARE = 0.012
WHOLE = (0.9, 1.5)
"""Runnable tasks of a job that takes part: one that computes all the time."""
ALIKE = 0.02
"""Share by which nodes may differ in power and speed."""
TOGETHER = (30.0, 0.1)
"""Seconds, or share of the oldest's, by which the ages of jobs that began together differ at most: whichever is more."""
TRIES = 32
"""Nodes with one job too many that are looked at, those first whose jobs had least."""


def rotate(draft: Draft) -> None:
    """Adds the moves of a rotation, when nothing else is to be done."""
    policy = draft.policy
    if policy.rotation is Rotation.AUTO and policy.goal is Goal.OPPORTUNITY_COST and not draft.moves:
        _Rotation(draft).run()


class _Rotation:
    """Nodes count as ``equal`` when all that computes on them are whole jobs of which is known what they have had."""

    def __init__(self, draft: Draft) -> None:
        self.draft, self.picture = draft, draft.picture
        picture, jobs = self.picture, self.picture.jobs
        count = len(picture.views)
        busy = picture.staying & (jobs.demand >= IDLE)
        self.attained: Floats = floats(jobs.views, "attained")
        whole = busy & (jobs.demand >= WHOLE[0]) & (jobs.demand <= WHOLE[1]) & (self.attained >= 0) & np.isfinite(self.attained)
        here = jobs.at[whole]
        self.number = np.bincount(here, minlength=count)
        """Whole jobs by node."""
        sums = np.bincount(here, self.attained[whole], count)
        self.had: Floats = np.divide(sums, self.number, out=np.zeros(count), where=self.number > 0)
        """What they have had, on average."""
        others = np.bincount(jobs.at[busy & ~whole], minlength=count) if count else self.number
        quiet = ~draft.givers & ~draft.takers & (picture.surplus < 0.5)
        self.equal: Bools = picture.open & (others == 0) & (self.number > 0) & quiet
        self.whole = whole
        ages = jobs.age[whole]
        self.oldest, self.youngest = np.zeros(count), np.full(count, np.inf)
        np.maximum.at(self.oldest, here, ages)
        np.minimum.at(self.youngest, here, ages)

    def run(self) -> None:
        """The most urgent first, until the budget is used up or nobody is behind by more than a quantum."""
        for source in self._crowded()[:TRIES]:
            if self.draft.spent:
                return
            if not self.draft.cannot_give(int(source)):
                self._relieve(int(source))

    def _crowded(self) -> Ints:
        """Nodes that have a job more than some other like them, those first whose jobs had least."""
        nodes = np.flatnonzero(self.equal & (self.number >= 2) & (self.picture.leaving > 1 / self.picture.speed))
        fewest = int(self.number[self.equal].min(initial=0))
        nodes = nodes[self.number[nodes] > fewest]
        return np.asarray(nodes[np.lexsort((nodes, self.had[nodes]))])

    def _relieve(self, source: int) -> None:
        """The job that had most goes where the jobs have had more still, by a quantum, than those that stay."""
        picture, draft = self.picture, self.draft
        jobs = [int(row) for row in picture.on(source) if self.whole[row]]
        there = self._like(source)
        for row in sorted(jobs, key=lambda row: (picture.jobs.views[row].priority, -self.attained[row], row)):
            if not picture.jobs.views[row].movable or draft.not_now(row):
                continue
            rest = (self.number[source] * self.had[source] - self.attained[row]) / (self.number[source] - 1)
            fits = there & ~draft.busy & ~draft.takers & (draft.room >= picture.jobs.memory[row])
            fits &= picture.fit.allowed(picture.jobs.views[row])
            fits &= self.had - rest >= self._quantum(row, float(rest))
            if draft.policy.time_sharing is TimeSharing.AGED:
                fits &= self._began_with(source)
            if fits.any():
                best = int(np.argmax(np.where(fits, self.had, -np.inf)))
                self._move(row, source, best, float(rest))
                return

    def _like(self, source: int) -> Bools:
        """Nodes of the same kind that have one job less."""
        picture = self.picture
        alike = np.abs(picture.power / picture.power[source] - 1) <= ALIKE
        alike &= np.abs(picture.speed / picture.speed[source] - 1) <= ALIKE
        return np.asarray(self.equal & alike & (self.number == self.number[source] - 1))

    def _began_with(self, source: int) -> Bools:
        """Nodes whose jobs began when those of ``source`` did."""
        oldest, youngest = np.maximum(self.oldest, self.oldest[source]), np.minimum(self.youngest, self.youngest[source])
        return np.asarray(oldest - youngest <= np.maximum(TOGETHER[0], TOGETHER[1] * oldest))

    def _quantum(self, row: int, rest: float) -> float:
        freeze = float(freezes(self.picture, np.array([row]))[0])
        return max(FREEZES * freeze, SHARE * rest, self.draft.policy.min_residency)

    def _move(self, row: int, source: int, destination: int, rest: float) -> None:
        names = self.picture.names
        behind = self.had[destination] - rest
        more, less = self.number[source], self.number[destination]
        reason = (
            f"rotation: {more} equal jobs on {names[source]}, {less} on {names[destination]}, where they had "
            f"{self.had[destination]:.0f} s of CPU, {behind:.0f} s more than what stays: so all end together"
        )
        gain = 1 - self.number[destination] / self.number[source]
        self.equal[[source, destination]] = False
        self.draft.move(row, destination, reason, float(gain), Cause.ROTATION)
