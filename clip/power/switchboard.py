"""Acts on requests for power: /mx/machine-power/<node>/request -> /mx/power/<node>/outcome.

First it is written down that we act (compared with the request, the heartbeat and what was known before), then we act, then it is
written down what came of it. So of two that act only one does, and after a crash it is known that something may have been done:
on and off are simply repeated; a reset is not, because by now the machine may be up and have jobs.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from clip.power.driver import Driver, PowerError
from crds import keys
from crds.job import FINISHED, Job
from crds.load import Alive
from crds.meta import Model
from crds.node import Node
from crds.placement import Placement, Role
from crds.power import PowerAction, PowerDriver, PowerOutcome, PowerPhase, PowerRequest, PowerState
from crds.report import JobReport, ReportPhase
from store.errors import Conflict, NotFound, StoreError
from store.informer import Informer
from store.kv import KV, Compare, KeyValue, Put, unchanged
from store.objects import parse_or_broken
from store.store import Store
from store.transaction import commit

M = TypeVar("M", bound=Model)

log = logging.getLogger(__name__)

SECONDS = 60.0
"""For one action, its controller's slowness included."""
RETRY = 2.0
_LIVES = frozenset({ReportPhase.STARTING, ReportPhase.RUNNING, ReportPhase.ARRIVING, ReportPhase.FROZEN})
_OVER = frozenset({PowerPhase.DONE, PowerPhase.FAILED, PowerPhase.REFUSED, PowerPhase.UNKNOWN})


class Switchboard:
    """``run`` until cancelled. ``make`` gives the driver of a node; ``mine`` says which nodes are ours to switch."""

    def __init__(
        self,
        kv: KV,
        make: Callable[[Node], Driver],
        now: Callable[[], datetime],
        mine: Callable[[Node], bool] = lambda _: True,
    ) -> None:
        self._kv, self._store, self._make, self._now, self._mine = kv, Store(kv, clock=now), make, now, mine
        self._busy: set[str] = set()
        self._asked: set[str] = set()

    async def run(self) -> None:
        """One action at a time for a machine, all machines at once."""
        news = asyncio.Event()
        informer = Informer(self._kv, keys.POWER)

        def notice(key: str, _old: KeyValue | None, new: KeyValue | None) -> None:
            if new is not None and key.endswith("/request"):
                self._asked.add(keys.parts(key)[1])
                news.set()

        informer.subscribe(notice)
        async with asyncio.TaskGroup() as group:
            group.create_task(informer.run(), name="informer")
            while True:
                await news.wait()
                news.clear()
                for node in sorted(self._asked - self._busy):
                    self._busy.add(node)
                    group.create_task(self._serve(node), name=f"power {node}")

    async def _serve(self, node: str) -> None:
        """Until nothing more is asked for; what comes meanwhile is noticed at the end."""
        while node in self._asked:
            self._asked.discard(node)
            try:
                while await self.handle(node):
                    pass
            except Conflict as error:
                log.info("power of %s: %s", node, error)
                self._asked.add(node)
            except StoreError as error:
                log.warning("power of %s: %s", node, error)
                self._asked.add(node)
                await asyncio.sleep(RETRY)
        self._busy.discard(node)

    async def handle(self, node: str) -> bool:
        """Does what is asked for, if it is still to be done; False when nothing was. Raises StoreError."""
        asked, known = await self._kv.get(keys.power_request(node)), await self._kv.get(keys.power_outcome(node))
        request, before = _parse(PowerRequest, asked), _parse(PowerOutcome, known)
        if asked is None or request is None:
            return False
        mine = before is not None and before.id == request.id
        if mine and before is not None and before.phase in _OVER:
            return False
        if mine and request.action == PowerAction.RESET:
            message = "interrupted while it was reset: look whether the machine restarted"
            await self._write(node, request, PowerPhase.UNKNOWN, known, message=message)
            return True
        try:
            if not self._mine(await self._store.get(Node, node)):
                return False
        except NotFound:
            return False
        alive = await self._kv.get(keys.alive(node))
        why = await self._why_not(node, request, alive)
        if why:
            await self._write(node, request, PowerPhase.REFUSED, known, message=why)
            return True
        relied_on = _as_seen(asked.key, asked), _as_seen(keys.alive(node), alive)
        written = await self._write(node, request, PowerPhase.ACTING, known, *relied_on)
        phase, state, message = await self._act(node, request)
        log.info("power %s of %s for %s: %s %s", request.action, node, request.requested_by, phase, message)
        await self._write(node, request, phase, written, state=state, message=message)
        return True

    async def _why_not(self, node: str, request: PowerRequest, alive: KeyValue | None) -> str:
        if request.expires_at is not None and self._now() > request.expires_at:
            return "it came too late: nobody waits for it any more"
        heard = _parse(Alive, alive)
        if request.boot_id and heard is not None and heard.boot_id != request.boot_id:
            return "the machine was restarted meanwhile"
        if request.only_empty and request.action in (PowerAction.OFF, PowerAction.RESET):
            living = await self._living(node)
            if living:
                return f"jobs live on it: {', '.join(living)}: move them away first (mxctl drain {node})"
        return ""

    async def _living(self, node: str) -> list[str]:
        """Jobs that would be killed. What cannot be read counts as one."""
        found = set()
        prefix = keys.placement_prefix(node)
        for kv in (await self._kv.list(prefix)).items:
            namespace, name = kv.key.removeprefix(prefix).split("/")
            placement = _parse(Placement, kv)
            if placement is not None and placement.role == Role.DROP:
                continue
            if not await self._is_over(namespace, name):
                found.add(f"{namespace}/{name}")
        reports = f"{keys.node_prefix(node)}jobs/"
        for kv in (await self._kv.list(reports)).items:
            report = _parse(JobReport, kv)
            if report is None or report.phase in _LIVES:
                found.add(kv.key.removeprefix(reports))
        return sorted(found)

    async def _is_over(self, namespace: str, name: str) -> bool:
        try:
            return (await self._store.get(Job, name, namespace)).status.phase in FINISHED
        except NotFound:
            return False

    async def _act(self, node: str, request: PowerRequest) -> tuple[PowerPhase, PowerState, str]:
        try:
            async with asyncio.timeout(SECONDS):
                driver = self._make(await self._store.get(Node, node))
                if request.from_network and request.action in (PowerAction.ON, PowerAction.RESET):
                    await driver.boot_from_network()
                match request.action:
                    case PowerAction.ON:
                        await driver.on()
                    case PowerAction.OFF:
                        await driver.off()
                    case PowerAction.RESET:
                        await driver.reset()
                return PowerPhase.DONE, await driver.status(), ""
        except (PowerError, NotFound) as error:
            return PowerPhase.FAILED, PowerState.UNKNOWN, str(error)
        except TimeoutError:
            return PowerPhase.FAILED, PowerState.UNKNOWN, f"its controller has not answered within {SECONDS:g} s: is it reachable?"

    async def _write(
        self,
        node: str,
        request: PowerRequest,
        phase: PowerPhase,
        known: KeyValue | None,
        *relied_on: Compare,
        state: PowerState = PowerState.UNKNOWN,
        message: str = "",
    ) -> KeyValue:
        """The outcome, as long as everything is as it was seen. Raises Conflict."""
        outcome = PowerOutcome(id=request.id, phase=phase, state=state, message=message, time=self._now())
        key = keys.power_outcome(node)
        compares = [_as_seen(key, known), *relied_on]
        revision = await commit(self._kv, (), compares, [Put(key, outcome.to_json())])
        return KeyValue(key, outcome.to_json(), revision, revision)


def on_machines(node: Node) -> bool:
    """Nodes of a lab are switched on the machine the lab is on, where they are processes."""
    return node.spec.power is None or node.spec.power.driver != PowerDriver.LAB


def _as_seen(key: str, kv: KeyValue | None) -> Compare:
    return unchanged(key, kv.mod_revision if kv else 0)


def _parse(kind: type[M], kv: KeyValue | None) -> M | None:
    """None also for what cannot be read: the reconciler tells people about that."""
    found = parse_or_broken(kind, kv) if kv else None
    return found if isinstance(found, kind) else None
