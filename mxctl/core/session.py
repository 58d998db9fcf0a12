"""One verb's conversation with one cluster: connects, runs the verb, disconnects, and names the cluster when it does not answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import click

from crds.keys import LEADER
from crds.meta import DEFAULT_NAMESPACE
from mxctl.core.failures import Failure, innermost
from mxctl.core.settings import Settings
from store import context as contexts
from store.context import Context
from store.errors import StoreError, Unavailable
from store.kv import KV
from store.store import Store

T = TypeVar("T")

CALL_SECONDS = 5.0  # a cluster that has not answered one call by then is told as unreachable


@dataclass(frozen=True, slots=True)
class Session:
    """What a verb works with."""

    store: Store
    context: Context
    namespace: str

    @property
    def kv(self) -> KV:
        return self.store.kv

    def unreachable(self, error: object) -> Failure:
        """The failure that says which cluster does not answer, and what to look at."""
        where = ", ".join(self.context.endpoints)
        return Failure(
            f'etcd of context "{self.context.name}" at {where} does not answer ({error}): is the cluster up? see mxctl lab status'
        )


def run(settings: Settings, verb: Callable[[Session], Awaitable[T]]) -> T:
    """Runs the verb against the cluster the settings name. Raises Failure and StoreError, never a group of errors."""

    async def whole() -> T:
        async with connected(settings) as session:
            try:
                return await verb(session)
            except (StoreError, BaseExceptionGroup) as error:
                cause = innermost(error)
                if isinstance(cause, Unavailable):
                    raise session.unreachable(cause) from error
                raise cause from error

    return asyncio.run(whole())


async def warn_if_unled(session: Session) -> None:
    """Statuses are written by the reconciler: without one they may be old, and whoever reads them must know."""
    if await session.kv.get(LEADER) is None:
        click.echo(
            "Warning: no reconciler is leading: what you see may be old, and nothing will be done about what you ask for", err=True
        )


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Session]:
    """The conversation alone, for verbs that have their own way with a cluster that does not answer. Failure."""
    context, kv = await _open(settings)
    try:
        yield Session(Store(kv), context, settings.namespace or DEFAULT_NAMESPACE)
    finally:
        await kv.close()


async def _open(settings: Settings) -> tuple[Context, KV]:
    try:
        context = settings.found or contexts.current(settings.context)
        connect = settings.connect or (lambda found: contexts.connect(found, timeout=CALL_SECONDS))
        return context, await connect(context)
    except StoreError as error:
        raise Failure(str(error)) from error
