"""Aged time-sharing on one node: jobs that have had much CPU yield to young ones, by the weights of their control groups.

The rule is crds/timesharing.py's, the simulator's too. It has no clock of its own: it is asked after each look at the jobs, and
writes only where a weight has changed noticeably, which is some fifty times in a job's first minute and never after it. A lone job
needs no weight.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from crds.timesharing import weight
from nodeagent.engine import Copy, Sandbox
from nodeagent.errors import AgentError

log = logging.getLogger(__name__)

PLAIN = 100
"""The weight of a group of which nobody said anything."""
SCALE = 1000.0
MOST = 10_000
NOTICEABLE = 1.1
"""Times that a weight must have changed to be written."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """One copy: CPU seconds its job has had anywhere, its runnable tasks, whether it does not compete at the moment."""

    copy: Copy
    sandbox: Sandbox
    aged: bool
    attained: float
    tasks: float
    rests: bool


def group_weight(attained: float, tasks: float) -> int:
    """Weight of a job's group, from that of its tasks."""
    count = max(1, round(tasks))
    return min(MOST, max(1, round(SCALE * count * weight(attained / count))))


class Weighing:
    """Remembers what it has written. Copies that an earlier agent weighed are put right when they are first seen."""

    def __init__(self) -> None:
        self._written: dict[Copy, int] = {}
        self._told = ""

    async def weigh(self, jobs: Sequence[Weighed]) -> None:
        """Sets what has changed noticeably. What the kernel refuses is said once, and the job shares as before."""
        self._written = {job.copy: self._written[job.copy] for job in jobs if job.copy in self._written}
        compete = sum(not job.rests for job in jobs) > 1
        for job in jobs:
            wish = group_weight(job.attained, job.tasks) if job.aged else PLAIN
            known = self._written.get(job.copy)
            if known == wish or (known is not None and job.aged and (not compete or _alike(known, wish))):
                continue
            self._written[job.copy] = wish
            try:
                await job.sandbox.weigh(wish)
            except AgentError as error:
                self._tell(str(error))

    def _tell(self, message: str) -> None:
        if not self._told:
            log.warning("%s", message)
        self._told = message


def _alike(known: int, wish: int) -> bool:
    return known / NOTICEABLE < wish < known * NOTICEABLE
