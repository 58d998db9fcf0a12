"""Placement: what one node must run. Written by the reconciler only, read by that node's agent only.

It carries the whole job spec, so that an agent needs to read nothing else. The highest epoch of a job is the only one that may run.
"""

from enum import StrEnum

from pydantic import Field

from crds.balancepolicy import TimeSharing
from crds.job import Fencing, JobSpec, MigrationMode
from crds.meta import Model, Time


class Role(StrEnum):
    """What the node has to do with the job."""

    RUN = "run"
    """Start it, or go on running it."""
    LEAVE = "leave"
    """Freeze it and send it to the peer."""
    ARRIVE = "arrive"
    """Receive it from the peer."""
    DROP = "drop"
    """It was taken away while this node was silent, and lives elsewhere: end the copy here, and say so by removing the report."""
    RESTORE = "restore"
    """Let it go on from a checkpoint, or go on running it."""
    INHERIT = "inherit"
    """It was deleted while no node had it: take over the directory that it left, so that it is removed as every job's is."""


class MoveOrder(Model):
    """Both ends of a move get the same order."""

    migration: str
    """Name of the Migration."""
    source: str
    """Node the job leaves."""
    destination: str
    """Node the job goes to."""
    peer: str
    """Data channel of the other end, host:port."""
    ticket: str
    """Random word that the source must show to the destination; good for this move only."""
    mode: MigrationMode = MigrationMode.STOP
    """stop, post-copy or pre-copy; never auto."""
    deadline: Time
    """The agents give up at this time unless the commit point is reached."""


class CheckpointOrder(Model):
    """A checkpoint to be taken, or (role restore) to be restored."""

    name: str
    """Name of the Checkpoint."""
    path: str
    """Its directory, below the job's own."""
    digest: str = ""
    """role restore: what the manifest there must hash to, or it is not the one that was taken."""
    deadline: Time | None = None
    """role run: at this time it has failed."""


class Placement(Model):
    """/mx/placements/<node>/<namespace>/<job>."""

    uid: str
    """uid of the Job."""
    epoch: int = Field(ge=1)
    """Rises with every placement of the job."""
    life: int = 0
    """Rises when the job is started anew or goes on from a checkpoint: what is left of an earlier life must go."""
    role: Role
    """run, leave, arrive, drop or restore."""
    spec: JobSpec
    """The job's spec when it was placed."""
    fencing: Fencing = Fencing.FREEZE
    """What the node does with the job when it lost touch with the cluster."""
    time_sharing: TimeSharing = TimeSharing.FAIR
    """How the node's jobs share its CPU."""
    address: str | None = None
    """The job's own address with its prefix length, e.g. 10.77.1.5/16; set when it has a network of its own."""
    mac: str | None = None
    """The hardware address that belongs to it."""
    gateway: str | None = None
    """Where the job sends what is not for its own network; None: nowhere."""
    checkpoint: CheckpointOrder | None = None
    """role run: take this checkpoint, unless the report says that it was; role restore: go on from it."""
    discard: list[str] = Field(default_factory=list)
    """Directories of checkpoints, below the job's own, that are to be removed."""
    move: MoveOrder | None = None
    """Set for leave and arrive; kept with run until the move is tidied up."""
