"""What dnsmasq says of machines in its log: who got an address, and who did not, and why.

Its log and not its leases: those say nothing of a machine that gets the same address again, or none.
"""

import asyncio
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

from clip.service.sighting import Message

log = logging.getLogger(__name__)

POLL = 0.2  # seconds
LARGEST = 4 << 20  # bytes of log that are kept
_MAC = r"(?P<mac>(?:[0-9a-f]{2}:){5}[0-9a-f]{2})"
_ADDRESS = r"(?P<address>\d+\.\d+\.\d+\.\d+)"
_GIVEN = re.compile(rf"DHCPACK\([^)]*\) {_ADDRESS} {_MAC}")
_REFUSED = re.compile(
    rf"DHCP(?:DISCOVER|REQUEST|NAK)\([^)]*\) (?:{_ADDRESS} )?{_MAC} (?P<why>(?:no address|address|wrong|static|lease|not)[ a-z-]+)"
)


def read_line(line: str) -> Message | None:
    """What a line of the log means; None when it is about something else."""
    if found := _GIVEN.search(line):
        return Message(found["mac"], stage="dhcp", address=found["address"])
    if found := _REFUSED.search(line):
        return Message(found["mac"], problem=f"DHCP gives it no address: {found['why'].strip()}")
    return None


async def follow(path: Path, hear: Callable[[Message], None]) -> None:
    """Reads what is appended, until cancelled; a log that grew too large is emptied (dnsmasq only appends)."""
    position = path.stat().st_size if path.exists() else 0
    rest = b""
    while True:
        await asyncio.sleep(POLL)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            continue
        position = min(position, size)
        if size > position:
            fresh = rest + _read(path, position)
            position = size if size <= LARGEST else _empty(path)
            *lines, rest = fresh.split(b"\n")
            for line in lines:
                message = read_line(line.decode(errors="replace"))
                if message is not None:
                    hear(message)


def _read(path: Path, position: int) -> bytes:
    with path.open("rb") as stream:
        stream.seek(position)
        return stream.read()


def _empty(path: Path) -> int:
    os.truncate(path, 0)
    return 0
