"""Faults that wait for a moment: they strike when an agent comes to a named step of a move, at any node and in any order.

Most of what can break a move lies within a few steps of it. Faults that come at any time meet one of them now and then; these
always do. Each may also hold up the agent there, so that what it set off can run on meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from nodeagent.engine import Copy
from nodeagent.errors import EngineFailed
from tests.moments import DESTINATION, POST_COPY_DESTINATION, POST_COPY_SOURCE, SOURCE

if TYPE_CHECKING:
    from tests.integration.machine.base import Base

FAILURES = ("leave.refused", "Resumed.before", "Resumed.after", "Refused.before", "arrive.refused", "start.intent", "start.created")
ROUNDS = ("leave.round", "arrive.round")
MOMENTS = (*SOURCE, *DESTINATION, *POST_COPY_SOURCE, *POST_COPY_DESTINATION, *FAILURES, *ROUNDS)
SECONDS = (0.0, 0.1, 1.0, 1.0, 5.0, 20.0, 60.0)
PAUSES = (0.0, 0.0, 0.1, 3.0, 20.0)
FAILING = ("dump", "serve", "pre_dump", "restore", "resume", "sever", "forget", "create", "adopt")


@dataclass(frozen=True, slots=True)
class Strike:
    """``seconds``: how long it lasts; ``pause``: for how long the agent is held up there."""

    moment: str
    kind: str
    other: str
    """Another node, for what strikes one; if it is not another, the peer of the move."""
    seconds: float
    pause: float
    number: int

    async def on(self, cloud: "Base", node: str, copy: Copy) -> None:
        cloud.counted[self.kind] += 1
        done = KINDS[self.kind](Scene(cloud, node, copy, self))
        if done is not None:
            await done
        await asyncio.sleep(self.pause)


@dataclass(frozen=True, slots=True)
class Scene:
    """Where it strikes."""

    cloud: "Base"
    node: str
    copy: Copy
    strike: Strike

    @property
    def other(self) -> str:
        links = [link for link in self.cloud.cluster.network.links[-6:] if self.node in (link.caller, link.callee)]
        if self.strike.other != self.node or not links:
            return self.strike.other
        return links[-1].callee if links[-1].caller == self.node else links[-1].caller


def _cut(scene: Scene) -> None:
    for link in scene.cloud.cluster.network.links[-6:]:
        if scene.node in (link.caller, link.callee):
            link.cut()


def _part(scene: Scene) -> None:
    if scene.other != scene.node:
        scene.cloud.part(scene.node, scene.other, scene.strike.seconds)


def _lose_answer(scene: Scene) -> None:
    late = min(scene.strike.seconds, 5.0) if scene.strike.number % 3 == 2 else None
    scene.cloud.cluster.machines[scene.node].kv.fail_next("txn", applied=scene.strike.number % 3 == 1, late=late)


def _lag(scene: Scene) -> None:
    scene.cloud.cluster.machines[scene.node].kv.lag = min(scene.strike.seconds, 10.0)


def _end(scene: Scene) -> None:
    for shim in scene.cloud.cluster.world.copies(scene.copy.uid):
        if shim.runs:
            shim.end(scene.strike.number % 4)


def _kill(scene: Scene) -> None:
    for shim in scene.cloud.shims(scene.node, scene.copy.name):
        scene.cloud.kill(shim)


def _fail(scene: Scene) -> None:
    word = FAILING[scene.strike.number % len(FAILING)]
    scene.cloud.cluster.machines[scene.node].knobs.errors[word].append(EngineFailed(f"{word} failed on demand"))


def _break_stream(scene: Scene) -> None:
    for shim in list(scene.cloud.cluster.world.shims.values()):
        if shim.copy.uid == scene.copy.uid and shim.serving:
            scene.cloud.break_stream(shim, shim.end_stream)


def _crash_reconcilers(scene: Scene) -> None:
    for each in scene.cloud.cluster.candidates:
        scene.cloud.loop.call_later(scene.strike.seconds, scene.cloud.replace, each)
        each.life.end()


KINDS: dict[str, Callable[[Scene], Awaitable[None] | None]] = {
    "crash": lambda scene: scene.cloud.crash(scene.node, scene.strike.seconds),
    "crash of other": lambda scene: scene.cloud.crash(scene.other, scene.strike.seconds),
    "power": lambda scene: scene.cloud.power_off(scene.node, scene.strike.seconds),
    "power of other": lambda scene: scene.cloud.power_off(scene.other, scene.strike.seconds),
    "cut": _cut,
    "part": _part,
    "no etcd": lambda scene: scene.cloud.cut_off(scene.node, scene.strike.seconds),
    "no etcd for other": lambda scene: scene.cloud.cut_off(scene.other, scene.strike.seconds),
    "no etcd for reconcilers": lambda scene: scene.cloud.cut_off("reconcilers", scene.strike.seconds),
    "lose answer": _lose_answer,
    "lag": _lag,
    "cancel": lambda scene: scene.cloud.cancel_move(scene.copy.name),
    "delete": lambda scene: scene.cloud.delete_job(scene.copy.name),
    "end": _end,
    "kill": _kill,
    "fail": _fail,
    "break stream": _break_stream,
    "crash of reconcilers": _crash_reconcilers,
    "nothing": lambda _: None,
}
OFTEN = ("crash", "crash", "cut", "cut", "cancel")
"""What has found most."""


def strikes(nodes: tuple[str, ...]) -> st.SearchStrategy[Strike]:
    return st.builds(
        Strike,
        moment=st.sampled_from(MOMENTS),
        kind=st.sampled_from((*OFTEN, *KINDS)),
        other=st.sampled_from(nodes),
        seconds=st.sampled_from(SECONDS),
        pause=st.sampled_from(PAUSES),
        number=st.integers(0, 100),
    )
