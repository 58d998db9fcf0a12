"""What several verbs have to know about a job: where its output lies, and when it has ended."""

from pathlib import Path

from crds import keys
from crds.job import FINISHED, Job
from mxctl.core.failures import Failure
from mxctl.core.session import Session
from store.errors import NotFound
from store.informer import Informer


def output_file(session: Session, job: Job) -> Path:
    """What the job printed. Raises Failure when this machine does not see the nodes' /shared."""
    shared = session.context.shared
    if shared is None:
        raise Failure(
            f'context "{session.context.name}" does not say where this machine sees /shared: set "shared" in the context\'s entry'
        )
    return Path(shared, ".mx", "jobs", job.namespace, f"{job.name}-{(job.metadata.uid or '')[:8]}", "output.log")


def job_key(job: Job) -> str:
    """Its key, to watch it."""
    return keys.object_key(Job, job.name, job.namespace)


def same_job(informer: Informer, job: Job) -> Job | None:
    """The job as it is now; None when it is gone, also when another has its name. Raises Invalid."""
    try:
        now = informer.get(Job, job.name, job.namespace)
    except NotFound:
        return None
    return now if now.metadata.uid == job.metadata.uid else None


def ended(job: Job) -> bool:
    """Whether nothing of it runs any more, nor will."""
    return job.status.phase in FINISHED


def exit_code(job: Job) -> int:
    """What a command that waited for the job ends with: the job's own code; 1 when it never got one and failed."""
    if job.status.exit_code is not None:
        return job.status.exit_code
    return 0 if job.status.phase == "Succeeded" else 1
