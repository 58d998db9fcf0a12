"""What an agent says of the jobs on its node: JobReport and Claim. Keys below /mx/nodes/<node>/, written by that agent only."""

from enum import StrEnum

from pydantic import Field

from crds.meta import Model, Time
from crds.quantity import Memory


class ReportPhase(StrEnum):
    """What became of the job on this node; which may follow which is in ``states.REPORT``."""

    STARTING = "Starting"
    """Written before the process is started: the intent."""
    RUNNING = "Running"
    """Its processes run here."""
    ARRIVING = "Arriving"
    """A copy is being received; nothing runs here yet."""
    FROZEN = "Frozen"
    """Stopped here while it is being moved away."""
    LEFT = "Left"
    """It runs elsewhere now; the copy here is gone."""
    ABSENT = "Absent"
    """An arrival that was refused: nothing of it is here."""
    SUCCEEDED = "Succeeded"
    """Ended with exit code 0."""
    FAILED = "Failed"
    """Ended otherwise, could not be started, or was stopped on request."""
    LOST = "Lost"
    """It was started here, and is gone without an exit code (the machine went down, for instance)."""


ENDED = frozenset({ReportPhase.SUCCEEDED, ReportPhase.FAILED, ReportPhase.LOST})


EXEC_SESSION = "ExecSession"
"""The one obstacle that holds for the balancer only: when people move the job, sessions in it end, and are told so."""


class Obstacle(Model):
    """Why the job cannot be moved at the moment."""

    reason: str
    """One CamelCase word, e.g. IoUring."""
    message: str
    """What was found, in which process, and what to do about it; one line."""


class CheckpointReport(Model):
    """The latest checkpoint this node took (or failed to take) of the job."""

    name: str
    """Name of the Checkpoint."""
    ok: bool
    """Whether it is there, whole."""
    bytes: int = 0
    """Size of its files."""
    digest: str = ""
    """What its manifest hashes to."""
    freeze_ms: float | None = None
    """Milliseconds in which no instruction of the job ran."""
    message: str = ""
    """What failed, in one line."""


class RestoreReport(Model):
    """How it went to let the job go on from a checkpoint."""

    name: str
    """Name of the Checkpoint."""
    ok: bool | None = None
    """None while under way."""
    damaged: bool = False
    """The checkpoint is not what was taken: it will never do."""
    message: str = ""
    """What failed, or what was cut off the job's files to make them fit, in one line."""


class MoveReport(Model):
    """One end's view of the latest move."""

    migration: str
    """Name of the Migration."""
    step: str
    """The step reached, see ``states.SOURCE_MOVE`` and ``states.DESTINATION_MOVE``."""
    ok: bool | None = None
    """None while under way."""
    bytes: int = 0
    """Bytes of images sent or received."""
    frozen_bytes: int = 0
    """Of these, what came while the job stood still; the destination knows."""
    freeze_ms: float | None = None
    """Milliseconds from the freeze to the first instruction; the destination knows."""
    message: str = ""
    """What failed, in one line."""


class JobReport(Model):
    """/mx/nodes/<node>/jobs/<namespace>/<job>."""

    uid: str
    """uid of the Job."""
    epoch: int = Field(ge=1)
    """Epoch this is about."""
    life: int = 0
    """Life of the job this is about."""
    phase: ReportPhase
    """What became of it."""
    boot_id: str
    """The node's boot: a report of another boot is about processes that are gone."""
    fenced_after: float | None = None
    """The node's promise: so many seconds after its heartbeat is gone no instruction of this copy is executed any more, until
    it has read its placement anew. Unset: nobody can say (fencing keep, or nothing there that could keep the promise)."""
    reason: str = ""
    """Why it ended, when that needs a word of its own; else empty."""
    exit_code: int | None = None
    """128 + signal when a signal ended it."""
    message: str = ""
    """Detail in one line."""
    started_at: Time | None = None
    """First start, anywhere."""
    finished_at: Time | None = None
    """End."""
    cpu_seconds: float = 0.0
    """CPU time used on all nodes up to now, seconds."""
    memory: Memory = 0
    """Resident bytes when last looked at."""
    obstacles: list[Obstacle] | None = None
    """Why it cannot be moved at the moment; empty when it can, as far as is known; unset while nobody has looked."""
    files: list[str] | None = None
    """Files of this node that it has mapped, when somebody wants to compare them with those of other nodes."""
    checkpoint: CheckpointReport | None = None
    """Latest checkpoint taken here."""
    restored: RestoreReport | None = None
    """The checkpoint this life of the job went on from."""
    discarded: list[str] = Field(default_factory=list)
    """Those of the placement's ``discard`` that are gone."""
    move: MoveReport | None = None
    """Latest move this node took part in for this job."""


class Verdict(StrEnum):
    """How the destination decided."""

    ACCEPTED = "accepted"
    REFUSED = "refused"


class Claim(Model):
    """/mx/nodes/<node>/claims/<namespace>/<job>: the commit record of an arrival. Created once, by transaction, or not at all."""

    uid: str
    """uid of the Job."""
    epoch: int
    """Epoch of the placement it answers."""
    verdict: Verdict
    """accepted: from here on only the destination's copy may run. refused: it will never run there."""
    reason: str = ""
    """Why it was refused."""
