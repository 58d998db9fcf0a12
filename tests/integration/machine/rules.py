"""The state machine's rules: what may happen to a cluster."""

import asyncio
from typing import Any

from hypothesis import strategies as st

from crds.job import MigrationMode
from crds.migration import Migration
from nodeagent.errors import EngineFailed
from tests.integration.machine.base import COMMANDS, DEADLINES, JOBS, MODES, NODES, happens, in_loop
from tests.integration.machine.judge import Judged
from tests.integration.machine.strikes import FAILING

SHORT = (0.0, 0.01, 0.1, 0.5, 1.0)
LONG = (3.0, 8.0, 20.0)
VERY_LONG = (*LONG, 60.0)

nodes, jobs = st.sampled_from(NODES), st.sampled_from(JOBS)
anybody = st.sampled_from((*NODES, "reconcilers"))


class Cloud(Judged):
    """One cluster, its people and its faults."""

    # --- people ---

    @happens(name=jobs, command=st.sampled_from(COMMANDS), node=st.none() | nodes)
    def create(self, name: str, command: list[str], node: str | None) -> None:
        self.do(self._create(name, command, node))

    @happens(name=jobs, to=st.none() | nodes, deadline=st.sampled_from(DEADLINES), mode=st.sampled_from(MODES))
    def migrate(self, name: str, to: str | None, deadline: float, mode: MigrationMode | None) -> None:
        self.do(self._migrate(name, to, deadline, mode))

    @happens(name=jobs)
    def cancel(self, name: str) -> None:
        self.do(self.cancel_move(name))

    @happens(name=jobs)
    def delete(self, name: str) -> None:
        self.do(self.delete_job(name))

    @happens(number=st.integers(1, 1000))
    def forget_migration(self, number: int) -> None:
        found = self.do(self.cluster.store.list(Migration)).items
        if found:
            self.do(self.cluster.store.delete(Migration, found[number % len(found)].name, "default"))

    @happens(name=jobs, code=st.sampled_from((0, 3)))
    def end_job(self, name: str, code: int) -> None:
        """It ends by itself."""
        for shim in list(self.cluster.world.shims.values()):
            if shim.copy.name == name and shim.runs:
                self.do(in_loop(shim.end, code))

    @happens(name=jobs, node=nodes)
    def kill_copy(self, name: str, node: str) -> None:
        for shim in self.shims(node, name):
            self.do(in_loop(self.kill, shim))

    # --- daemons ---

    @happens(node=nodes, left=st.integers(0, 40), back=st.sampled_from((*SHORT, *LONG)))
    def crash_agent(self, node: str, left: int, back: float) -> None:
        """At one of its next effects; another one starts after a while."""
        machine = self.cluster.machines[node]
        if machine.life is not None and machine.life.left is None:
            machine.life.left = left
            self.loop.call_later(back, self.restart, node)

    @happens(node=nodes)
    def crash_agent_now(self, node: str) -> None:
        self.do(in_loop(self.crash, node, 0.0))

    @happens(node=nodes, back=st.sampled_from(VERY_LONG))
    def power_cut(self, node: str, back: float) -> None:
        self.do(in_loop(self.power_off, node, back))

    @happens(number=st.integers(0, 1), left=st.integers(0, 30), back=st.sampled_from((*SHORT, *LONG)))
    def crash_reconciler(self, number: int, left: int, back: float) -> None:
        """At one of its next effects; another one starts after a while, besides the one that stands by."""
        living = self.cluster.candidates
        if number < len(living) and living[number].life.left is None:
            living[number].life.left = left
            self.loop.call_later(back, self.replace, living[number])

    # --- etcd and the network ---

    @happens(who=st.sampled_from((*NODES, *NODES, "reconcilers", "all")), seconds=st.sampled_from((*SHORT, *VERY_LONG)))
    def no_etcd(self, who: str, seconds: float) -> None:
        self.cut_off(who, seconds)

    @happens(who=anybody, call=st.sampled_from(("txn", "txn", "get", "list", "keep_alive")), applied=st.booleans())
    def lose_answer(self, who: str, call: str, applied: bool) -> None:
        for kv in self.clients(who):
            kv.fail_next(call, applied=applied)

    @happens(who=anybody, late=st.sampled_from((0.05, 0.5, 3.0)))
    def come_through_late(self, who: str, late: float) -> None:
        """A write that was given up is done after all."""
        for kv in self.clients(who):
            kv.fail_next("txn", late=late)

    @happens(who=anybody, lag=st.sampled_from((0.5, 3.0, 10.0)), seconds=st.sampled_from(LONG))
    def stale_watch(self, who: str, lag: float, seconds: float) -> None:
        for kv in self.clients(who):
            kv.lag = lag
            self.loop.call_later(seconds, setattr, kv, "lag", 0.0)

    @happens(who=anybody, delays=st.sampled_from(((0.2, 0.0), (0.0, 0.2), (2.0, 0.0), (0.0, 2.0))), seconds=st.sampled_from(LONG))
    def slow_etcd(self, who: str, delays: tuple[float, float], seconds: float) -> None:
        for kv in self.clients(who):
            before = kv.delay, kv.answer
            kv.delay, kv.answer = delays
            self.loop.call_later(seconds, _set_delays, kv, *before)

    @happens()
    def compact(self) -> None:
        """Whoever has to watch from before has to list again."""
        server = self.cluster.kv.server
        if server.compacted < server.revision:
            server.compact(server.revision)
        for kv in self.clients("all"):
            kv.drop_watches()

    @happens(number=st.integers(0, 100))
    def cut_link(self, number: int) -> None:
        links = self.cluster.network.links[-3:]
        if links:
            self.do(in_loop(links[number % len(links)].cut))

    @happens(name=jobs)
    def cut_pages(self, name: str) -> None:
        """Memory that follows that job comes no more, because the connection breaks."""
        for wire in self.cluster.network.wires[-3:]:
            for shim in self.shims(wire.source, name):
                if shim.serving:
                    self.do(in_loop(self.break_stream, shim, wire.cut))

    @happens(one=nodes, other=nodes, seconds=st.sampled_from((*SHORT, *LONG)))
    def silence(self, one: str, other: str, seconds: float) -> None:
        if one != other:
            self.do(in_loop(self.part, one, other, seconds))

    @happens(node=nodes, what=st.sampled_from((*FAILING, "restore")))
    def fail_criu(self, node: str, what: str) -> None:
        self.cluster.machines[node].knobs.errors[what].append(EngineFailed(f"{what} failed on demand"))

    @happens(
        node=nodes,
        what=st.sampled_from(("dump", "restore", "create", "forget", "resume", "pages")),
        pause=st.sampled_from((0.0, 0.3, 3.0, 30.0)),
        seconds=st.sampled_from(LONG),
    )
    def slow_criu(self, node: str, what: str, pause: float, seconds: float) -> None:
        delays = self.cluster.machines[node].knobs.delay
        delays[what] = pause
        self.loop.call_later(seconds, delays.update, {what: self.cluster.pace[what]})

    # --- time ---

    @happens(seconds=st.sampled_from((*SHORT, *LONG)))
    def wait(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @happens(seconds=st.sampled_from(LONG))
    def calm(self, seconds: float) -> None:
        """All that is broken is mended, so that there is something to break again."""
        self.do(self.mend())
        self.do(asyncio.sleep(seconds))


def _set_delays(kv: Any, delay: float, answer: float) -> None:
    kv.delay, kv.answer = delay, answer
