"""Rollout: brings nodes to what they should run, a few at a time, and stops at the first that does not come back."""

from enum import StrEnum
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from crds.assignment import Assignment
from crds.meta import Column, Model, Name, Resource, Status, Time
from crds.quantity import Duration


class UpdateStep(StrEnum):
    """Steps of one node in a rollout. Jobs come to it only before the first and after the last."""

    DRAINING = "Draining"
    """Its jobs are being moved away; it boots what it was assigned before."""
    RESTARTING = "Restarting"
    """It is empty and assigned the new: it is restarted and waited for."""
    REVERTING = "Reverting"
    """It did not come back: it is assigned what it ran well with before, and restarted again."""
    UPDATED = "Updated"
    """It is Ready with what it was to run."""
    DEFERRED = "Deferred"
    """It did not answer when its turn came: it is assigned the new, and boots it when it is next switched on."""
    REVERTED = "Reverted"
    """It runs what it ran before."""
    STUCK = "Stuck"
    """It came back neither with the new nor with the old."""
    KEPT = "Kept"
    """It was never restarted: its jobs could not leave, or the rollout was stopped before. It goes on as it was."""


ROLLOUT_FINALIZER = "mx/rollout"
"""Held while nodes are under way: no node is left half-updated because somebody deleted the object."""
UNDER_WAY = frozenset({UpdateStep.DRAINING, UpdateStep.RESTARTING, UpdateStep.REVERTING})


class NodeUpdate(Model):
    """Node.status.update: where a node stands in a rollout, or stood in its last one."""

    rollout: Name
    """The Rollout's name."""
    uid: str
    """The Rollout's uid."""
    created: Time
    """When the Rollout was made: a younger one takes a node over from an older."""
    attempt: int = 0
    """The Rollout's attempt (it was resumed so often)."""
    step: UpdateStep
    """Where it stands."""
    target: Assignment
    """What it is to run."""
    before: Assignment | None = None
    """What it ran well with when its turn came."""
    boot_id: str = ""
    """The boot that has to end."""
    since: Time
    """When this step began."""
    restarts: int = 0
    """How often a restart was asked for in this step."""
    undo: bool = False
    """It was on its way back."""
    failed: bool = False
    """It did not come to it, and that stops the rollout."""
    message: str = ""
    """What it waits for, or what came of it."""


class RolloutPhase(StrEnum):
    """Where a rollout stands."""

    PROGRESSING = "Progressing"
    PAUSED = "Paused"
    """No further node is begun."""
    COMPLETE = "Complete"
    STOPPED = "Stopped"
    """A node failed: no further one is begun until somebody resumes it."""


class RolloutSpec(Model):
    """Which nodes, and how carefully."""

    image: Name | None = None
    """All nodes of this image."""
    nodes: list[Name] = Field(default_factory=list)
    """These nodes. Neither image nor nodes: all of the cluster."""
    revision: str | None = None
    """The revision of ``image`` to go to; the current one when the rollout begins, if unset."""
    max_unavailable: int = Field(default=1, ge=1)
    """How many nodes may be away at once."""
    deadline: Duration = 600.0
    """How long a node may take from its restart until it is Ready."""
    drain_deadline: Duration = 600.0
    """How long its jobs may take to leave it."""
    paused: bool = False
    """Begin no further node."""
    undo: bool = False
    """Bring the nodes it has updated back to what they ran before."""
    attempt: int = Field(default=0, ge=0)
    """Raised by resume: nodes that failed in an earlier attempt are tried again."""

    @model_validator(mode="after")
    def _names_one_thing(self) -> "RolloutSpec":
        if self.image and self.nodes:
            raise ValueError("image and nodes are both given: name the nodes, or the image whose nodes are meant")
        if self.revision and not self.image:
            raise ValueError("revision is one of an image: give image, too")
        return self


class RolloutStatus(Status):
    """How it goes."""

    phase: RolloutPhase = RolloutPhase.PROGRESSING
    """Where it stands."""
    revisions: dict[str, str] = Field(default_factory=dict)
    """By image, the revision its nodes go to: fixed when the rollout began."""
    undone: bool = False
    """The phase is that of the way back."""
    total: int = 0
    """Nodes it is about."""
    updated: int = 0
    """Nodes that are as they should be."""
    away: list[str] = Field(default_factory=list)
    """Nodes that are being emptied or restarted."""
    failed: list[str] = Field(default_factory=list)
    """Nodes that did not come to it, each with its reason."""
    started_at: Time | None = None
    """When it began."""
    finished_at: Time | None = None
    """When it ended."""
    message: str = ""
    """What it is doing, or why it stopped."""


class Rollout(Resource):
    """One controlled change of what nodes run."""

    KIND: ClassVar[str] = "Rollout"
    PLURAL: ClassVar[str] = "rollouts"
    SHORT: ClassVar[tuple[str, ...]] = ("ro",)
    COLUMNS: ClassVar[tuple[Column, ...]] = (
        Column("PHASE", lambda r: str(r.status.phase)),
        Column("UPDATED", lambda r: f"{r.status.updated}/{r.status.total}"),
        Column("AWAY", lambda r: ",".join(r.status.away) or "-"),
        Column("TO", lambda r: ",".join(f"{i}@{d}" for i, d in sorted(r.status.revisions.items())) or "-", wide=True),
        Column("MESSAGE", lambda r: r.status.message or "-", wide=True),
    )

    kind: Literal["Rollout"] = "Rollout"
    """Kind of the resource."""
    spec: RolloutSpec = Field(default_factory=RolloutSpec)
    """Desired state."""
    status: RolloutStatus = Field(default_factory=RolloutStatus)
    """Observed state."""
