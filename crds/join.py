"""Joining: what is known of a machine that asked for a certificate, and which certificates are believed no more."""

from enum import StrEnum

from pydantic import Field

from crds.meta import Model, Name, Time


class Proof(StrEnum):
    """Why a machine is believed to be what it says."""

    BOOTED = "Booted"
    """Its token stood in the answer with which we booted it."""
    GIVEN = "Given"
    """Its token was given to it by a person."""


class JoinState(StrEnum):
    """How it goes with it."""

    WAITING = "Waiting"
    """For somebody's approval, or for its predecessor's end."""
    ISSUED = "Issued"
    """It has a certificate."""


class Issued(Model):
    """A certificate that was handed out."""

    serial: str
    """Its serial number, upper-case hexadecimal."""
    until: Time
    """When it ends by itself."""


class JoinFacts(Model):
    """What the machine says of itself; nobody has proved it."""

    hostname: str = Field(default="", max_length=253)
    """As it calls itself."""
    address: str = Field(default="", max_length=45)
    """From which it asked."""
    system: str = Field(default="", max_length=200)
    """Its operating system."""
    kernel: str = Field(default="", max_length=200)
    """Its kernel's release."""
    cpus: int = 0
    """Processors it has."""
    memory: int = 0
    """Bytes it has."""


class JoinRecord(Model):
    """/mx/join/<mac>. Written by clip; ``approved`` by people. Goes with the node."""

    state: JoinState
    """How it goes."""
    reason: str = ""
    """One line for people: what it waits for."""
    proof: Proof
    """Why it was heard at all."""
    key: str
    """SHA-256 of the public key with which it asked: who comes with another one needs another token."""
    node: Name | None = None
    """Whose certificate it gets; unset until somebody says."""
    approved: Name | None = None
    """The node as which a person admitted it, with this key."""
    asked: Time
    """When it first asked with this key."""
    facts: JoinFacts = Field(default_factory=JoinFacts)
    """What it says of itself."""
    certificates: list[Issued] = Field(default_factory=list)
    """Those it has that have not ended."""


class Revocation(Model):
    """/mx/public/revoked/<serial>: no agent believes this certificate. Removed when it would have ended by itself."""

    node: Name
    """Whose it was."""
    until: Time
    """When it ends by itself."""
    reason: str = ""
    """One line for people."""
