"""What the agent must not forget: one record for each job it has to do with, on a disk that survives reboots.

A record is written, with fsync, before the side effect it announces, so that a restarted agent knows what may have happened. Each
job has a file of its own: a line per step, the last intact line counts. A line that was torn by a crash announces a side effect
that never happened, so it is passed over. A first line is put in place by an atomic rename and an fsync of the directory.
"""

import json
import logging
import os
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from crds.job import JobSpec
from crds.meta import Model, Time
from crds.placement import CheckpointOrder, MoveOrder
from crds.report import JobReport
from crds.states import DESTINATION_MOVE, SOURCE_MOVE, DestinationStep, SourceStep, may_follow
from nodeagent.engine import Copy, Network
from nodeagent.errors import AgentError

log = logging.getLogger(__name__)

KEPT_LINES = 32  # a longer file is written anew with its last line only


class JournalBroken(AgentError):  # noqa: N818 - named after the state of the file
    """A step was about to be taken that the state tables do not allow: a defect of the agent, so nothing is done."""


class Stage(StrEnum):
    """Where a job stands on this node when it is not in a move."""

    START = "Start"
    """To be started; its process was not made yet."""
    STARTING = "Starting"
    """To be started at once: whether it was is not known any more once the agent has died."""
    RESTORE = "Restore"
    """To go on from a checkpoint; no instruction of this life was run yet."""
    HELD = "Held"
    """It was started here or it arrived: its processes are here."""
    ENDED = "Ended"
    """Its end is in the report; nothing of it runs."""


Step = Stage | SourceStep | DestinationStep
STEPS: dict[str, Step] = {str(step): step for steps in (Stage, SourceStep, DestinationStep) for step in steps}

IN_MOVE_OUT = frozenset({SourceStep.CONNECTING, SourceStep.FREEZING, SourceStep.SENT, SourceStep.SERVING})
HERE = frozenset({Stage.HELD, SourceStep.RESUMED, DestinationStep.RUNNING})
"""The job runs here and no move of it is under way."""
RUNS_HERE = HERE | {DestinationStep.FETCHING}


class Record(Model):
    """One line: all the agent knows of the job."""

    namespace: str
    name: str
    uid: str
    epoch: int
    """Epoch of the placement that was acted on last."""
    copy_epoch: int
    """Epoch that names the copy here; it stays when a move fails and the job goes on under a higher epoch."""
    life: int = 0
    """Life of the job; what is here of an earlier one must go before a later one begins."""
    step: str
    """A Stage, SourceStep or DestinationStep."""
    spec: JobSpec
    network: Network | None = None
    """The job's own; it uses its node's otherwise."""
    order: MoveOrder | None = None
    """The latest move."""
    checkpoint: CheckpointOrder | None = None
    """What this life of the job goes on from."""
    revision: int = 0
    """mod_revision of the placement an arrival acts on."""
    base_cpu_seconds: float = 0.0
    """CPU time the job used before it came here."""
    frozen_at: float | None = None
    """When an arrival was frozen, on this node's boot clock; for an agent that is restarted before it lets it run."""
    started_at: Time | None = None
    """First start of the job, anywhere."""
    reason: str = ""
    """Why an arrival is refused."""
    report: JobReport | None = None
    """What is to stand in etcd; written there as soon as that is possible."""

    @property
    def at(self) -> Step:
        """The step, as the constant it is."""
        return STEPS[self.step]

    @property
    def key(self) -> str:
        """ "<namespace>/<name>"."""
        return f"{self.namespace}/{self.name}"

    @property
    def copy_here(self) -> Copy:
        """Names the copy on this node."""
        return Copy(self.namespace, self.name, self.uid, self.copy_epoch)


class Journal:
    """Records by "<namespace>/<name>". Not for two processes at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lines: dict[str, int] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def load(self) -> dict[str, Record]:
        """All records. A file without one intact line is set aside as .broken, loudly: its job is then judged by its report."""
        found = {}
        for file in sorted(self._directory.glob("*.jsonl")):
            lines = list(_intact(file.read_bytes()))
            if lines:
                record = lines[-1]
                found[record.key] = record
                self._replace(record)  # a torn last line must not swallow the next one
            else:
                log.error("journal %s has no intact line: set aside, the job is judged by its report", file)
                file.replace(file.with_suffix(".broken"))
        return found

    def write(self, record: Record) -> None:
        """Durable when it returns. Blocks for one fsync (a few ms): call it in a thread where that matters."""
        lines = self._lines.get(record.key, 0)
        if lines == 0 or lines >= KEPT_LINES:
            self._replace(record)
            return
        with self._file(record.key).open("ab", buffering=0) as file:
            file.write(_line(record))
            os.fdatasync(file.fileno())
        self._lines[record.key] = lines + 1

    def remove(self, key: str) -> None:
        """The job is no matter of this node any more; no error when there is no record."""
        self._lines.pop(key, None)
        self._file(key).unlink(missing_ok=True)
        self._sync_directory()

    def _replace(self, record: Record) -> None:
        file = self._file(record.key)
        fresh = file.with_suffix(".new")
        with fresh.open("wb", buffering=0) as out:
            out.write(_line(record))
            os.fdatasync(out.fileno())
        fresh.replace(file)
        self._sync_directory()
        self._lines[record.key] = 1

    def _file(self, key: str) -> Path:
        return self._directory / f"{key.replace('/', '_')}.jsonl"  # names have no underscore

    def _sync_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def check_step(record: Record, step: Step) -> None:
    """Raises JournalBroken when the move tables forbid ``step`` after the record's. Between moves all stages may follow."""
    old = record.at
    if step == old:
        allowed = True
    elif isinstance(old, SourceStep) and isinstance(step, SourceStep) and old != SourceStep.RESUMED:
        allowed = may_follow(SOURCE_MOVE, old, step)
    elif isinstance(old, DestinationStep) and isinstance(step, DestinationStep):
        allowed = may_follow(DESTINATION_MOVE, old, step)
    elif isinstance(step, DestinationStep):
        allowed = False  # an arrival begins with a record of its own
    elif isinstance(step, SourceStep):
        allowed = old in HERE and step == SourceStep.CONNECTING
    else:
        allowed = old not in (SourceStep.GONE, DestinationStep.REFUSED)
    if not allowed:
        raise JournalBroken(f"job {record.key}: {old} may not be followed by {step}: left as it is, look into the agent's log")


def _line(record: Record) -> bytes:
    text = record.to_json()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _intact(raw: bytes) -> Iterator[Record]:
    for line in raw.split(b"\n")[:-1]:  # what follows the last line end is torn
        checksum, _, text = line.partition(b" ")
        if checksum != b"%08x" % zlib.crc32(text):
            continue
        try:
            yield Record.model_validate_json(text)
        except (ValidationError, json.JSONDecodeError) as error:
            log.error("journal line of another version passed over: %s", str(error).splitlines()[0])
