"""Wake-on-LAN, by wakeonlan: a packet to everybody that one machine wakes up from. It can do nothing else, and nobody answers."""

import asyncio
from collections.abc import Callable

from clip.power.driver import PowerError
from crds.power import PowerState

BROADCAST = "255.255.255.255"
Send = Callable[[str, str], None]


def send_packet(mac: str, broadcast: str) -> None:
    """PowerError."""
    try:
        import wakeonlan
    except ImportError as error:
        raise PowerError(f"wake-on-lan of {mac}: wakeonlan is missing on the head: pip install wakeonlan") from error
    try:
        wakeonlan.send_magic_packet(mac, ip_address=broadcast)
    except (OSError, ValueError) as error:
        raise PowerError(f"wake-on-lan of {mac} over {broadcast}: {error}") from error


class WolDriver:
    """``broadcast``: where the packet is sent to."""

    def __init__(self, mac: str, broadcast: str = BROADCAST, send: Send = send_packet) -> None:
        self._mac, self._broadcast, self._send = mac, broadcast, send

    async def status(self) -> PowerState:
        return PowerState.UNKNOWN

    async def on(self) -> None:
        await asyncio.to_thread(self._send, self._mac, self._broadcast)

    async def off(self) -> None:
        raise PowerError(f"wake-on-lan of {self._mac}: it cannot switch off: do it by hand, or use another driver")

    async def reset(self) -> None:
        raise PowerError(f"wake-on-lan of {self._mac}: it cannot reset: restart the machine by hand, or use another driver")

    async def boot_from_network(self) -> None:
        """The machine's own firmware decides."""
