"""The demo's play: declare the cluster and the jobs, look on until all have ended, ask the witnesses.

``python -m lab.demo.show LAB [--batch] [--json] [--record FILE]``: a process of its own, because it enters the lab's network.
"""

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.live import Live

from crds import keys
from crds.codec import parse_documents
from crds.job import Job, JobPhase
from lab.demo.picture import draw
from lab.demo.recording import Recording
from lab.demo.scene import Scene, read_scene
from lab.demo.summary import Summary, summarise
from lab.demo.witness import read_statement
from lab.errors import LabError
from lab.model import Places
from lab.ready import context_of
from store.apply import apply
from store.context import connect
from store.errors import StoreError
from store.informer import Informer
from store.store import Store

EXAMPLES = Path(__file__).parents[2] / "examples"
READY_SECONDS = 60.0
END_SECONDS = 600.0
_FRAME_SECONDS = 0.25
TITLE = "MX: running processes move until the load is even"


class Stage:
    """The lab's store and the eyes of the audience."""

    def __init__(self, places: Places, store: Store, informer: Informer, console: Console, batch: bool) -> None:
        self.places = places
        self.store = store
        self.informer = informer
        self.console = console
        self.batch = batch
        self.recording = Recording()

    async def declare(self, file: str) -> None:
        """Apply one of the examples."""
        path = EXAMPLES / file
        for document in parse_documents(path.read_text(encoding="utf-8"), str(path)):
            applied = await apply(self.store, document)
            if self.batch:
                self.console.print(f"{applied.obj.label} {applied.verb}", highlight=False)

    async def look_on(self, until: Callable[[Scene], bool], seconds: float, awaited: str) -> Scene:
        """Show the scene again and again; LabError when ``awaited`` did not happen in time."""
        start = time.monotonic()
        told: set[str] = set()
        with (
            Live(console=self.console, auto_refresh=False, transient=until is _nodes_ready)
            if not self.batch
            else _NoPicture() as live
        ):
            while True:
                scene = read_scene(self.informer)
                elapsed = time.monotonic() - start
                self.recording.see(scene, elapsed)
                if isinstance(live, Live):
                    live.update(draw(scene, elapsed, TITLE), refresh=True)
                else:
                    self._tell(scene, elapsed, told)
                if until(scene):
                    return scene
                if elapsed > seconds:
                    raise LabError(f"{awaited} did not happen within {seconds:.0f} s; look at the lab with mxctl get nodes,jobs")
                await asyncio.sleep(_FRAME_SECONDS)

    def _tell(self, scene: Scene, elapsed: float, told: set[str]) -> None:
        """One line for each move that ended and each job that did."""
        for migration in (*scene.moved, *scene.failed):
            status = migration.status
            if migration.name not in told:
                told.add(migration.name)
                outcome = f"frozen {status.freeze_ms:.0f} ms" if status.freeze_ms is not None else f"failed: {status.message}"
                way = f"{status.source} -> {status.destination}"
                self._line(elapsed, f"{migration.spec.job} {way}, {outcome}: {migration.spec.reason}")
        for job in scene.jobs:
            if job.status.finished_at and job.name not in told:
                told.add(job.name)
                self._line(elapsed, f"{job.name} {job.status.phase} on {job.status.node} after {job.status.move_count} moves")

    def _line(self, elapsed: float, text: str) -> None:
        self.console.print(f"{elapsed:6.1f} s  {text}", highlight=False, soft_wrap=True, markup=False)


class _NoPicture:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def play(stage: Stage) -> Summary:
    """From the first declaration to the figures."""
    target = stage.places.shared / "demo"
    target.mkdir(exist_ok=True)
    shutil.copy(EXAMPLES / "work.py", target)
    await stage.declare("cluster.yaml")
    await stage.look_on(_nodes_ready, READY_SECONDS, "all nodes Ready")
    start = time.monotonic()
    await stage.declare("jobs.yaml")
    scene = await stage.look_on(
        lambda scene: bool(scene.jobs) and scene.finished == len(scene.jobs), END_SECONDS, "the end of all jobs"
    )
    return conclude(stage.places, scene, time.monotonic() - start)


def _nodes_ready(scene: Scene) -> bool:
    return bool(scene.nodes) and all(node.ready and node.cpu_capacity for node in scene.nodes)


def conclude(places: Places, scene: Scene, seconds: float) -> Summary:
    """The figures of a play that has ended; LabError when a job failed."""
    for job in scene.jobs:
        if job.status.phase != JobPhase.SUCCEEDED:
            raise LabError(
                f"{job.label} ended as {job.status.phase}: {job.status.message or job.status.exit_code}; see mxctl logs {job.name}"
            )
    statements = [read_statement(_output(places, job).read_text().splitlines()) for job in scene.jobs]
    freezes = [m.status.freeze_ms for m in scene.moved if m.status.freeze_ms is not None]
    cores = [node.cpu_capacity for node in scene.nodes]
    return summarise(cores, statements, freezes, len(scene.failed), seconds)


def _output(places: Places, job: Job) -> Path:
    return places.shared / ".mx" / "jobs" / job.namespace / f"{job.name}-{(job.metadata.uid or '')[:8]}" / "output.log"


def in_words(summary: Summary) -> str:
    """The figures in words."""
    lost = "none lost, none done twice" if summary.lost == 0 else f"[bold red]{summary.lost} LOST OR DOUBLED[/]"
    return (
        f"{summary.jobs} jobs on {summary.nodes} nodes, all started on one: {summary.moves} moves"
        + (f" ({summary.moves_failed} failed)" if summary.moves_failed else "")
        + f", frozen {summary.freeze_ms_median:.0f} ms (median), {summary.freeze_ms_max:.0f} ms (longest)\n"
        f"{summary.seconds:.0f} s in all; had nobody moved at least {summary.seconds_unmoved_bound:.0f} s "
        f"({summary.seconds / summary.seconds_unmoved_bound:.2f} x); ideal {summary.seconds_ideal_bound:.0f} s "
        f"({summary.seconds / summary.seconds_ideal_bound:.2f} x)\n"
        f"iterations, as the jobs wrote them: {lost}"
    )


async def show(arguments: argparse.Namespace) -> int:
    """0 when nothing was lost."""
    console = Console()
    places = Places(arguments.lab)
    kv = await connect(context_of(places))
    informer = Informer(kv, keys.ROOT, ignore=(keys.EVENTS,))
    watching = asyncio.create_task(informer.run())
    try:
        await asyncio.wait_for(informer.synced.wait(), READY_SECONDS)
        stage = Stage(places, Store(kv), informer, console, arguments.batch)
        summary = await play(stage)
    finally:
        watching.cancel()
        await kv.close()
    console.print(in_words(summary), highlight=False)
    if arguments.record:
        stage.recording.save(Path(arguments.record), TITLE, in_words(summary))
    if arguments.json:
        print(json.dumps(asdict(summary)), flush=True)
    return 0 if summary.lost == 0 else 1


def main(words: Sequence[str]) -> int:
    """Exit code of the play."""
    parser = argparse.ArgumentParser(prog="lab.demo.show")
    parser.add_argument("lab")
    parser.add_argument("--batch", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--record")
    try:
        return asyncio.run(show(parser.parse_args(words)))
    except (LabError, StoreError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
