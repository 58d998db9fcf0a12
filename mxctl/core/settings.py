"""What the command line says about the whole command: which cluster, which namespace, how to connect."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from store.context import Context
    from store.kv import KV


@dataclass(slots=True)
class Settings:
    """``connect`` replaces the way to the cluster (tests put a store in memory there); with it no context file is read."""

    context: str | None = None
    namespace: str | None = None
    connect: "Callable[[Context], Awaitable[KV]] | None" = None
    found: "Context | None" = None
    """The context to use with ``connect``."""
