"""One beat for all that looks again and again: to wake is the dearest thing that an agent at rest does, so all wake at once.

Each node has a phase of its own, lest many nodes of one machine wake at the same moment.
"""

import asyncio
import zlib


class Beat:
    """Of the event loop's clock."""

    def __init__(self, node: str) -> None:
        self._phase = zlib.crc32(node.encode()) / 2**32

    async def sleep(self, seconds: float) -> None:
        """To the next multiple of so many seconds; of whoever sleeps so, no one has to wake alone."""
        await asyncio.sleep(self.until(seconds, asyncio.get_running_loop().time()))

    def until(self, seconds: float, now: float) -> float:
        """More than 0 and at most ``seconds``."""
        return seconds - (now - self._phase) % seconds
