"""The deadline of a move's order, and what was being waited for when it passed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

from crds.placement import MoveOrder
from nodeagent.errors import MoveFailed


class Deadline:
    """Of one end of one move. Steps under it end in MoveFailed that names what was under way."""

    def __init__(self, order: MoveOrder, now: datetime) -> None:
        self._order = order
        self._at = asyncio.get_running_loop().time() + (order.deadline - now).total_seconds()
        self._doing = ""

    @property
    def left(self) -> float:
        """Seconds; 0.1 at least, as a limit for what is about to be begun."""
        return max(0.1, self._at - asyncio.get_running_loop().time())

    def doing(self, words: str) -> None:
        """What is waited for from now on, to follow "while": "node n2 was being reached"."""
        self._doing = words

    @asynccontextmanager
    async def kept(self, doing: str) -> AsyncIterator[None]:
        """Breaks the body off when the deadline passes. Raises MoveFailed then."""
        self._doing = doing
        try:
            async with asyncio.timeout_at(self._at) as scope:
                yield
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise MoveFailed(f"move {self._order.migration}: its deadline passed while {self._doing}") from error
