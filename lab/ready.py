"""Waits until a lab answers: ``python -m lab.ready LAB NODE,NODE… SINCE STATE_DIRECTORY``, a process of its own.

Of its own, because it enters the lab's network namespace, and the process that builds a lab must stay in the host's. Prints a
line for each thing that is ready; ends with 0, or with 1 and what is missing, with the end of the log that tells why.
"""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from clip.registry import Registry
from crds import keys
from crds.load import Alive
from crds.organisations import person
from lab import machine
from lab.declare import declare_nodes
from lab.enrol import ADMIN, admin_files, enrol, open_authority
from lab.errors import LabError
from lab.model import ENDPOINT, HEAD, Lab, LabNode, Places
from lab.node import is_on, log_tail, services
from store.context import Context, connect
from store.errors import StoreError, Unavailable
from store.etcd import EtcdKV
from store.kv import KV
from store.rights import EtcdRights

SECONDS, MACHINE_SECONDS = 60.0, 480.0
MOST_SECONDS = SECONDS + MACHINE_SECONDS
MOST_STARTS = 8  # a service that had to be started so often is broken
_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Wait:
    """What to wait for: etcd when the head runs it, and each node's agent when it runs one, started after ``since``."""

    places: Places
    lab: Lab
    nodes: Sequence[LabNode]
    since: datetime


def context_of(places: Places) -> Context:
    """How to reach a lab's etcd, and its agents."""
    ca, certificate, key = map(str, admin_files(places))
    return Context(
        name=f"lab-{places.lab}",
        endpoints=[ENDPOINT],
        netns=places.netns,
        shared=str(places.shared),
        ca=ca,
        certificate=certificate,
        key=key,
    )


def seconds(nodes: Sequence[LabNode]) -> float:
    """How long these may take."""
    return MOST_SECONDS if any(node.machine for node in nodes) else SECONDS


async def wait_for_etcd(wait: Wait, kv: KV) -> None:
    """Until it answers."""
    while True:
        try:
            await kv.get(keys.LEADER)
            return
        except Unavailable:
            _fail_if_broken(wait)
            await asyncio.sleep(_POLL_SECONDS)


async def wait_for_agents(wait: Wait, kv: EtcdKV) -> None:
    """Until each agent has its certificate and its heartbeat of this start is there. Polls: it takes a second or two, once."""
    missing = {node.name for node in wait.nodes if _has_agent(node)}
    registry = Registry(kv, EtcdRights(kv.channel), open_authority(wait.places))
    while missing:
        for name in sorted(missing):
            node = wait.lab.node(name)
            enrolled = node.machine or not _has_tls(node) or await enrol(registry, node)  # the boot service enrols machines
            if enrolled and await _is_alive(kv, name, wait.since):
                missing.remove(name)
                print(f"{name} is alive", flush=True)
        if missing:
            _fail_if_broken(wait)
            await asyncio.sleep(_POLL_SECONDS)


async def _is_alive(kv: KV, node: str, since: datetime) -> bool:
    try:
        found = await kv.get(keys.alive(node))
    except Unavailable:
        return False  # a busy machine: it is asked again
    try:
        return found is not None and Alive.model_validate_json(found.value).since >= since
    except ValidationError:
        return False


def _is_declared(node: LabNode) -> bool:
    return node.machine.declared if node.machine else not node.plain


def _has_agent(node: LabNode) -> bool:
    return node.machine.declared if node.machine else _runs(node, "nodeagent")


def _has_tls(node: LabNode) -> bool:
    return any("--tls" in service.command for service in node.services)


def _runs(node: LabNode, service: str) -> bool:
    return any(each.name == service for each in node.services)


def _runs_head(wait: Wait) -> bool:
    """Whether the head was switched on just now, with an etcd that may know nobody yet."""
    return any(node.name == HEAD for node in wait.nodes)


def _fail_if_broken(wait: Wait) -> None:
    for node in wait.nodes:
        if node.machine and not is_on(node):
            raise LabError(f"machine {node.name} went off: {machine.console_tail(wait.places, node)}")
        if not is_on(node):
            raise LabError(f"node {node.name} went off: {log_tail(wait.places, node.name, 'init')}")
        for name, state in services(node).items():
            if int(str(state["starts"])) > MOST_STARTS:
                raise LabError(f"{name} on {node.name} ends again and again: {log_tail(wait.places, node.name, name)}")


def _what_is_missing(wait: Wait) -> str:
    logs = [
        f"{service.name} on {node.name}: {log_tail(wait.places, node.name, service.name, 3)}"
        for node in wait.nodes
        for service in node.services
    ]
    logs += [f"console of {node.name}: {machine.console_tail(wait.places, node)}" for node in wait.nodes if node.machine]
    return f"lab {wait.lab.name} did not become ready in {seconds(wait.nodes):.0f} s. Ends of the logs:\n" + "\n".join(logs)


async def wait_until_ready(wait: Wait) -> None:
    """LabError when it does not become so within SECONDS."""
    if not _runs(wait.lab.node(HEAD), "etcd"):
        return
    kv = await connect(context_of(wait.places), timeout=2.0)
    try:
        async with asyncio.timeout(seconds(wait.nodes)):
            await wait_for_etcd(wait, kv)
            if _runs_head(wait):
                await EtcdRights(kv.channel).secure([person(ADMIN)])
            print("etcd answers", flush=True)
            await declare_nodes(kv, [node for node in wait.nodes if node.name != HEAD and _is_declared(node)])
            await wait_for_agents(wait, kv)
    except TimeoutError as error:
        raise LabError(_what_is_missing(wait)) from error
    finally:
        await kv.close()


def main(arguments: Sequence[str]) -> int:
    """0 ready, 1 not."""
    name, nodes, since, state = arguments
    places = Places(name, Path(state))
    try:
        lab = places.load()
        wait = Wait(places, lab, [lab.node(node) for node in nodes.split(",")], datetime.fromisoformat(since))
        asyncio.run(wait_until_ready(wait))
    except (LabError, StoreError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
