"""Machines under fake agents: mx-clip switches them on request, and they boot what their Node is assigned.

Knobs: ``boot_seconds``, ``broken`` (revisions that do not boot), ``deaf`` (power requests fail), ``ignored`` (nobody takes them
up).
A reset of a machine with a living copy of a job is a violation, and so is more than ``most_away`` machines down at once.
"""

from dataclasses import dataclass, field
from typing import Any

from crds import keys
from crds.assignment import Assignment
from crds.image import Image, Revision
from crds.load import Alive
from crds.manifest import Manifest
from crds.meta import Metadata
from crds.node import Node, NodeSpec
from crds.power import PowerAction, PowerDriver, PowerOutcome, PowerPhase, PowerRequest, PowerSpec, PowerState
from crds.rollout import Rollout, RolloutSpec
from store.kv import Put

from .fake_agent import FakeAgent
from .house import House

ALIVE = frozenset({"starting", "running", "frozen", "committed"})


@dataclass
class MachineRoom:
    """Acts in the house like one more agent."""

    house: House
    boot_seconds: float = 30.0
    broken: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    most_away: int = 1
    violations: list[str] = field(default_factory=list)
    resets: list[tuple[str, str]] = field(default_factory=list)
    """Node and what it was assigned then, in order."""
    off: list[str] = field(default_factory=list)
    """Nodes that were switched off, in order."""
    booting: dict[str, float] = field(default_factory=dict)
    """By node, when it is up."""
    runs: dict[str, Assignment] = field(default_factory=dict)

    def running(self, _: str) -> bool:
        """It runs no jobs."""
        return False

    def act(self) -> bool:
        return self._switch() or self._boot()

    def _switch(self) -> bool:
        for kv in self.house.kv.server.list(keys.POWER, 0).items:
            if not kv.key.endswith("/request"):
                continue
            request = PowerRequest.model_validate_json(kv.value)
            node = keys.parts(kv.key)[1]
            known = self.house.kv.server.get(keys.power_outcome(node))
            if node in self.ignored or (known and PowerOutcome.model_validate_json(known.value).id == request.id):
                continue
            phase, message = (PowerPhase.FAILED, "no route to it") if node in self.deaf else (PowerPhase.DONE, "")
            outcome = PowerOutcome(id=request.id, phase=phase, message=message, state=PowerState.ON, time=self.house.clock.now())
            self._put(keys.power_outcome(node), outcome.to_json())
            if phase == PowerPhase.DONE and request.action == PowerAction.OFF:
                self.switch_off(node)
            elif phase == PowerPhase.DONE and (request.action != PowerAction.ON or node in self.off):
                self.reset(node, request)
            return True
        return False

    def switch_off(self, node: str) -> None:
        agent = self.house.agents[node]
        alive = [job for job, copy in agent.copies.items() if copy.state in ALIVE]
        if alive:
            self.violations.append(f"{node} was switched off under {', '.join(alive)}")
        agent.die()
        self.off.append(node)

    def reset(self, node: str, request: PowerRequest | None = None) -> None:
        """The machine is restarted, on request or by itself."""
        agent = self.house.agents[node]
        alive = [job for job, copy in agent.copies.items() if copy.state in ALIVE]
        if request is not None and alive:
            self.violations.append(f"{node} was restarted under {', '.join(alive)}")
        self.off = [name for name in self.off if name != node]
        agent.copies.clear()
        agent.boot += 1
        agent.die()
        self.booting[node] = self.house.clock.seconds + self.boot_seconds
        self.resets.append((node, self.assigned(node).revision))
        if len(self.booting) > self.most_away:
            self.violations.append(f"{', '.join(sorted(self.booting))} are away at once")

    def _boot(self) -> bool:
        for node, due in sorted(self.booting.items()):
            assigned = self.assigned(node)
            if due <= self.house.clock.seconds and assigned.revision not in self.broken:
                del self.booting[node]
                self.up(node, assigned)
                return True
        return False

    def up(self, node: str, assigned: Assignment) -> None:
        """Its agent is there."""
        agent = self.house.agents[node]
        agent.up = True
        self.runs[node] = assigned
        agent.beat(image=assigned.revision, assigned=assigned.digest)
        agent.load()

    def assigned(self, node: str) -> Assignment:
        kv = self.house.kv.server.get(keys.object_key(Node, node))
        assert kv is not None
        found = Node.from_json(kv.value).status.assigned
        assert found is not None, f"{node} boots, but nothing is assigned"
        return found

    def alive(self, node: str) -> Alive:
        kv = self.house.kv.server.get(keys.alive(node))
        assert kv is not None
        return Alive.model_validate_json(kv.value)

    def _put(self, key: str, value: bytes) -> None:
        self.house.kv.server.txn([], [Put(key, value)], [])

    # --- people ---

    async def image(self, *digests: str, name: str = "numpy") -> None:
        """These revisions are built; the last one is current."""
        now = self.house.clock.now()
        revisions = [
            Revision(number=n, digest=digest, layers=["a", "b"], boot="boot-x", kernel="6", built=now, recipe=digest)
            for n, digest in enumerate(digests, 1)
        ]
        if self.house.kv.server.get(keys.object_key(Image, name)) is None:
            await self.house.store.create(Image(metadata=Metadata(name=name)))

        def change(image: Image) -> None:
            image.status.revisions, image.status.current = revisions, len(revisions)

        await self.house.store.change_status(Image, name, None, change)

    async def content(self, digest: str, packages: dict[str, str], name: str = "numpy", **more: Any) -> None:
        """What is in a revision becomes known."""
        manifest = Manifest.model_validate({"digest": digest, "packages": packages, **more})
        self._put(keys.manifest(name, digest), manifest.to_json())
        await self.house.settle()

    async def machine(self, name: str, *, power: bool = True, up: bool = True) -> None:
        """A machine that is declared, booted and Ready."""
        driver = PowerSpec(driver=PowerDriver.QMP, address=f"/{name}") if power else None
        await self.house.store.create(Node(metadata=Metadata(name=name), spec=NodeSpec(image="numpy", power=driver)))
        self.house.agents[name] = FakeAgent(self.house.kv.server, name, self.house.wire, self.house.clock.now)
        await self.house.settle()
        if up:
            self.up(name, self.assigned(name))
            await self.house.settle()

    async def rollout(self, name: str = "r", **spec: object) -> None:
        await self.house.store.create(Rollout(metadata=Metadata(name=name), spec=RolloutSpec.model_validate(spec)))
        await self.house.settle()

    async def state(self, name: str = "r") -> Rollout:
        return await self.house.store.get(Rollout, name)

    def running_revisions(self) -> dict[str, str]:
        """By node that is up."""
        return {node: what.revision for node, what in sorted(self.runs.items()) if node not in self.booting}


async def room(house: House, *nodes: str, revision: str = "v1") -> MachineRoom:
    """Machines that run this revision, and the room they are in."""
    made = MachineRoom(house)
    house.agents["clip"] = made  # type: ignore[assignment]
    await made.image(revision)
    for node in nodes:
        await made.machine(node)
    return made
