"""What every driver can do. Drivers are made anew for each request and hold nothing in between."""

from typing import Protocol

from clip.errors import ClipError
from crds.power import PowerState


class PowerError(ClipError):
    """The machine could not be asked or switched; one line: its controller, what it said, what to look at."""


class Driver(Protocol):
    """One machine. All calls raise PowerError; whoever calls sets the time-out. ``on`` and ``off`` may be repeated."""

    async def status(self) -> PowerState:
        """What the machine says."""
        ...

    async def on(self) -> None:
        """Switches it on; nothing when it is."""
        ...

    async def off(self) -> None:
        """Switches it off at once, without asking its system; nothing when it is."""
        ...

    async def reset(self) -> None:
        """Starts it anew at once, from whatever state."""
        ...

    async def boot_from_network(self) -> None:
        """Its next boot is over the network."""
        ...
