"""``mxctl logs``: what a job printed, on whichever nodes it ran. Its output is one file on /shared, so a move leaves no seam."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import click

from crds.job import Job, JobPhase
from mxctl.core.failures import Failure
from mxctl.core.jobs import ended, job_key, output_file, same_job
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import parse_job
from mxctl.core.verb import Verb
from mxctl.core.watching import Watched, watching

EXAMPLES = """
mxctl logs w
mxctl logs -f w
mxctl logs --tail=20 job/w
"""

LOOK = 0.2  # seconds between two looks at the file: /shared may be NFS, which tells nobody of changes
BLOCK = 1 << 16  # bytes read at once


@click.command(cls=Verb, examples=EXAMPLES, short_help="Show what a job printed")
@click.argument("job")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@click.option("--tail", type=click.IntRange(min=0), help="Only that many lines from the end.")
@click.pass_obj
def logs(settings: Settings, /, job: str, follow: bool, tail: int | None) -> None:
    """Show what a job printed (stdout and stderr), on all nodes it ran on."""
    name = parse_job(job)
    run(settings, lambda session: _logs(session, name, follow, tail))


async def _logs(session: Session, name: str, follow: bool, tail: int | None) -> None:
    job = await session.store.get(Job, name, session.namespace)
    output = Output(output_file(session, job))
    with output:
        if follow:
            await _follow(session, job, output, tail)
        elif output.open():
            output.skip_to(tail)
            _print(output)
        else:
            raise Failure(_absent(job, output.path))


async def _follow(session: Session, job: Job, output: "Output", tail: int | None) -> None:
    """Prints until the job has ended or is gone, and then what came last."""
    await warn_if_unled(session)
    async with watching(session, job_key(job)) as watched:
        while True:
            now = same_job(watched.informer, job)  # before the look at the file: what an ended job printed is all there
            if output.open():
                output.skip_to(tail)
                tail = None
                _print(output)
            if now is None or ended(now):
                break
            await _moment(watched)
    output.reopen()
    _print(output)
    if now is None:
        click.echo(f"{job.label} was deleted", err=True)


async def _moment(watched: Watched) -> None:
    """Until something happens to the job, or it is time to look at the file again."""
    try:
        async with asyncio.timeout(LOOK):
            await watched.changes()
    except TimeoutError:
        return


def _print(output: "Output") -> None:
    for block in output.rest():
        click.echo(block, nl=False)


def _absent(job: Job, path: Path) -> str:
    if job.status.phase in (JobPhase.PENDING, JobPhase.STARTING):
        why = f" ({job.status.message or job.status.reason})" if job.status.message or job.status.reason else ""
        return f"{job.label} has not been started yet: it is {job.status.phase}{why}; wait for it with mxctl logs -f"
    if ended(job) and job.status.phase == JobPhase.FAILED:
        return f"{job.label} printed nothing, it failed before it could: {job.status.message}"
    return f"{job.label} is {job.status.phase}, but its output is not there: {path}"


class Output:
    """A growing file, read once from a position on. It stays open, so that it can be read to its end even after its deletion."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1
        self._position = 0

    def __enter__(self) -> "Output":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def open(self) -> bool:
        """False when there is nothing yet. Raises Failure when it may not be read."""
        if self._descriptor >= 0:
            return True
        try:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Failure(f"{self.path}: cannot be read: {error.strerror}; run as root, e.g. with sudo") from error
        return True

    def reopen(self) -> None:
        """An NFS client sees all that others wrote when it opens a file, not before. What was deleted meanwhile stays open."""
        if self.path.exists():
            self._close()
            self.open()

    def skip_to(self, lines: int | None) -> None:
        """Passes over everything but the last lines; over nothing for None."""
        if lines is None:
            return
        end = os.fstat(self._descriptor).st_size
        start = end
        tail = b""
        while start > 0 and tail.removesuffix(b"\n").count(b"\n") < lines:
            size = min(BLOCK, start)
            start -= size
            tail = os.pread(self._descriptor, size, start) + tail
        kept = tail.splitlines(keepends=True)[-lines:] if lines else []
        self._position = end - sum(map(len, kept))

    def rest(self) -> Iterator[bytes]:
        """What is there beyond the position, in blocks."""
        while self._descriptor >= 0 and (block := os.pread(self._descriptor, BLOCK, self._position)):
            self._position += len(block)
            yield block

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
