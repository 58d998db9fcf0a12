"""A terminal for tests: command lines against a store in memory, and what they answer."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from click.testing import CliRunner

from crds import keys
from crds.job import Job
from crds.meta import Model, Resource
from mxctl.cli import cli
from mxctl.core.settings import Settings
from store.context import Context
from store.kv import KV, Delete, Put
from store.memory import MemoryKV
from store.store import Store

T = TypeVar("T")

Script = Callable[[Store], Coroutine[Any, Any, None]]
"""What others do to the cluster while a command runs."""


@dataclass(frozen=True)
class Said:
    """``code`` is the exit code."""

    code: int
    out: str
    err: str


class Terminal:
    """``shared`` is where /shared is seen. A reconciler leads unless ``leave_unled`` was called."""

    def __init__(self, shared: str) -> None:
        self.kv = MemoryKV()
        self.down = False  # etcd does not answer
        self.context = Context(name="test", endpoints=["10.0.0.1:2379"], shared=shared)
        self.put(keys.LEADER, b"test")

    def run(self, *args: str, meanwhile: Script | None = None, stdin: str | None = None) -> Said:
        """``meanwhile`` runs beside the command, and ends with it at the latest; its own errors are the test's."""
        scripts: list[asyncio.Task[None]] = []

        async def connect(context: Context) -> KV:
            if meanwhile:
                scripts.append(asyncio.get_running_loop().create_task(meanwhile(Store(self.kv.client()))))
            client = self.kv.client()
            client.down = self.down
            return client

        settings = Settings(connect=connect, found=self.context)
        result = CliRunner().invoke(cli, list(args), obj=settings, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        for script in scripts:
            if not script.cancelled():
                script.result()
        return Said(result.exit_code, result.stdout, result.stderr)

    def do(self, action: Callable[[Store], Awaitable[T]]) -> T:
        """Something done to the store directly."""

        async def whole() -> T:
            return await action(Store(self.kv.client()))

        return asyncio.run(whole())

    def create(self, *objects: Resource) -> None:
        async def all_of_them(store: Store) -> None:
            for obj in objects:
                await store.create(obj)

        self.do(all_of_them)

    def put(self, key: str, value: bytes | Model) -> None:
        raw = value if isinstance(value, bytes) else value.to_json()
        self.do(lambda store: store.kv.txn((), (Put(key, raw),)))

    def status(self, kind: type[Resource], name: str, change: Callable[[Any], None]) -> None:
        """As the reconciler would write it."""
        self.do(lambda store: store.change_status(kind, name, None, change))

    def leave_unled(self) -> None:
        self.do(lambda store: store.kv.txn((), (Delete(keys.LEADER),)))

    @property
    def revision(self) -> int:
        return self.kv.server.revision


async def appears(store: Store, kind: type[Resource]) -> Resource:
    """The first object of the kind, as soon as there is one."""
    async for _ in store.kv.watch(keys.kind_prefix(kind), revision=1):
        found = (await store.list(kind)).items
        if found:
            return found[0]
    raise AssertionError("a watch never ends")


def job(name: str = "w", **spec: Any) -> Job:
    """A job that runs nothing in particular."""
    labels = spec.pop("labels", {})
    return Job.model_validate({"metadata": {"name": name, "labels": labels}, "spec": {"command": ["true"]} | spec})
