"""Machine: what CLiP saw of a network card that asked it for something. It is no object: nobody declares it.

A machine whose MAC belongs to no Node is *Discovered*: it is held before it has a kernel until somebody approves or refuses it.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from crds.meta import Model, Time
from crds.quantity import Memory

Mac = Annotated[str, StringConstraints(pattern=r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$", to_lower=True)]


def check_card(mac: str) -> str:
    """The MAC, or ValueError when it is a group's: no machine ever asks from there."""
    if int(mac[:2], 16) & 1:
        raise ValueError(f"{mac} is a group's address and no network card's: write down what is printed on the card")
    return mac


STAGES = ("dhcp", "ipxe", "kernel", "root", "agent")
"""Of one boot, in their order."""


class BootTimeline(Model):
    """When the latest boot came how far, by the head's clock. What was not reached yet is absent."""

    dhcp: Time | None = None
    """It got an address."""
    ipxe: Time | None = None
    """iPXE asked what to boot."""
    kernel: Time | None = None
    """It fetched its kernel."""
    root: Time | None = None
    """The kernel runs and has mounted the root."""
    agent: Time | None = None
    """Its agent was heard."""

    @property
    def stage(self) -> str:
        """The last stage that was reached, "" before the first."""
        return next((stage for stage in reversed(STAGES) if getattr(self, stage) is not None), "")


class Hardware(Model):
    """What a machine says of itself while it boots, as far as it knows."""

    vendor: str = ""
    """Who made it."""
    product: str = ""
    """What its maker calls it."""
    serial: str = ""
    """Its serial number."""
    uuid: str = ""
    """Its SMBIOS UUID."""
    firmware: str = ""
    """bios or uefi."""
    memory: Memory = 0
    """Bytes: of its modules, then what its kernel has; 0 when it did not say."""
    cpus: int = 0
    """Cores; 0 when it did not say."""


class Machine(Model):
    """/mx/machines/<mac>, written by CLiP only."""

    mac: Mac
    """Its network card."""
    hardware: Hardware = Field(default_factory=Hardware)
    """What it says of itself."""
    address: str = ""
    """Address it asked from last."""
    first_seen: Time
    """When it was first heard."""
    last_seen: Time
    """When it was last heard; rewritten at most every few seconds."""
    node: str = ""
    """The node it was served as; empty while it is held."""
    digest: str = ""
    """Digest of the image it was last given to boot."""
    boot: BootTimeline = Field(default_factory=BootTimeline)
    """How far its latest boot came."""
    problem: str = ""
    """What CLiP could not do for it; empty when there is nothing."""


class Refusal(Model):
    """/mx/denied/<mac>: somebody does not want this machine; it is told so and not listed any more."""

    mac: Mac
    """Its network card."""
    by: str = ""
    """Who refused it."""
    at: Time
    """When."""
