"""Whether a job can be moved, as far as the job itself goes: what its node found, and what its spec says. Pure.

Which nodes would take it is another question, see ``destinations``.
"""

from datetime import datetime

from crds.job import MIGRATABLE, Job
from crds.meta import Truth, find_condition, set_condition
from crds.report import EXEC_SESSION, JobReport

NO_OBSTACLES = "NoObstacles"
ONLY_BY_HAND = "OnlyByHand"
PINNED = "Pinned"

BY_HAND = "user"
"""Who asks for a move that a person wants."""


def note(job: Job, report: JobReport, now: datetime) -> None:
    """Sets the condition Migratable on a running job. Untouched while its node has not looked."""
    if job.spec.placement.pinned:
        found = Truth.FALSE, PINNED, f"it is pinned to node/{job.status.node}"
    elif report.obstacles is None:
        return
    elif report.obstacles and all(each.reason == EXEC_SESSION for each in report.obstacles):
        found = (
            Truth.TRUE,
            EXEC_SESSION,
            f"{report.obstacles[0].message}: the balancer leaves it alone, mxctl migrate and drain do not",
        )
    elif report.obstacles:
        reasons = dict.fromkeys(obstacle.reason for obstacle in report.obstacles)
        found = Truth.FALSE, next(iter(reasons)), "; ".join(f"{each.reason}: {each.message}" for each in report.obstacles)
    elif not job.spec.migration.allowed:
        found = Truth.TRUE, ONLY_BY_HAND, "spec.migration.allowed is false, so only mxctl migrate moves it"
    else:
        found = Truth.TRUE, NO_OBSTACLES, f"node/{job.status.node} sees nothing that keeps it from being moved"
    job.status.conditions = set_condition(job.status.conditions, MIGRATABLE, *found, now, job.metadata.generation)


def obstacles(job: Job) -> str:
    """What the condition says that keeps the job from being moved by anybody; empty when nothing does."""
    condition = find_condition(job.status.conditions, MIGRATABLE)
    if condition is None or condition.status != Truth.FALSE or condition.reason == PINNED:
        return ""
    return condition.message


def in_use(job: Job) -> str:
    """Why the balancer leaves it alone for now; empty when it need not."""
    condition = find_condition(job.status.conditions, MIGRATABLE)
    return condition.message if condition is not None and condition.reason == EXEC_SESSION else ""


def forbidden(job: Job, requested_by: str) -> str:
    """Why this one may not ask for its move; empty when he may. People may always: the spec keeps the machinery off."""
    if job.spec.migration.allowed or requested_by == BY_HAND:
        return ""
    return f"spec.migration.allowed is false, so {requested_by} does not move it; mxctl migrate {job.name} does"
