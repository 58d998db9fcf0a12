"""Placement: what one node must run. Written by the reconciler only, read by that node's agent only.

It carries the whole job spec, so that an agent needs to read nothing else. The highest epoch of a job is the only one that may run.
"""

from enum import StrEnum

from pydantic import Field

from crds.job import JobSpec
from crds.meta import Model, Time


class Role(StrEnum):
    """What the node has to do with the job."""

    RUN = "run"
    """Start it, or go on running it."""
    LEAVE = "leave"
    """Freeze it and send it to the peer."""
    ARRIVE = "arrive"
    """Receive it from the peer."""


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
    deadline: Time
    """The agents give up at this time unless the commit point is reached."""


class Placement(Model):
    """/mx/placements/<node>/<namespace>/<job>."""

    uid: str
    """uid of the Job."""
    epoch: int = Field(ge=1)
    """Rises with every placement of the job."""
    role: Role
    """run, leave or arrive."""
    spec: JobSpec
    """The job's spec when it was placed."""
    move: MoveOrder | None = None
    """Set for leave and arrive; kept with run until the move is tidied up."""
