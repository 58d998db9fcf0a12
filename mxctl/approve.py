"""``mxctl approve`` and ``refuse``: what becomes of a machine that nobody declared."""

import os
from collections.abc import Sequence

import click

from crds import keys
from crds.image import Image
from crds.machine import Machine, Refusal
from crds.meta import Metadata
from crds.node import Node, NodeSpec
from mxctl.core.discovered import choose_address, machines, network_of, refusals
from mxctl.core.failures import Failure
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb
from store.kv import Delete, Put, absent, unchanged

APPROVE = """
mxctl approve node 52:54:00:77:00:81 --name n3
mxctl approve node 52:54:00:77:00:81 --name n7 --address 10.77.0.17 --image numpy -l row=a
"""
REFUSE = """
mxctl refuse node 52:54:00:77:00:81
"""
_KIND = click.Choice(["node"])


@click.command(cls=Verb, examples=APPROVE, short_help="Make a discovered machine a node")
@click.argument("kind", type=_KIND)
@click.argument("mac")
@click.option("--name", required=True, help="What it will be called.")
@click.option("--address", help="Its IPv4 address; without it the next free one of the cluster's network.")
@click.option("--image", help="Image it runs; without it the cluster's only one.")
@click.option("-l", "--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label; may be said several times.")
@click.pass_obj
def approve(
    settings: Settings, kind: str, mac: str, name: str, address: str | None, image: str | None, labels: tuple[str, ...]
) -> None:
    """Make a machine that mxctl get nodes shows as Discovered a node of the cluster. It boots within seconds, as it waits for that.

    The same as applying a Node with its MAC; one that was refused before may be approved.
    """
    chosen = dict(_label(text) for text in labels)
    run(settings, lambda session: _approve(session, mac.lower(), name, address, image, chosen))


@click.command(cls=Verb, examples=REFUSE, short_help="Do not want a discovered machine")
@click.argument("kind", type=_KIND)
@click.argument("mac")
@click.pass_obj
def refuse(settings: Settings, kind: str, mac: str) -> None:
    """Do not list or answer a machine any more. mxctl approve takes it back."""
    run(settings, lambda session: _refuse(session, mac.lower()))


async def _approve(session: Session, mac: str, name: str, address: str | None, image: str | None, labels: dict[str, str]) -> None:
    await _find(session, mac)
    nodes = (await session.store.list(Node)).items
    owner = next((node.name for node in nodes if node.spec.mac == mac), None)
    if owner is not None:
        raise Failure(f"{mac} is node/{owner} already: nothing to approve")
    node = Node(
        metadata=Metadata(name=name, labels=labels),
        spec=NodeSpec(mac=mac, address=address or await _free_address(session, nodes), image=image or await _only_image(session)),
    )
    await session.store.create(node)
    there = await session.kv.get(keys.refusal(mac))
    if there is not None:
        await session.kv.txn([unchanged(there.key, there.mod_revision)], [Delete(there.key)])
    click.echo(f"node/{name} approved, {mac} boots as {node.spec.address}")


async def _only_image(session: Session) -> str | None:
    """None while there is no image: a lab's head has one of its own for machines that name none."""
    names = [image.name for image in (await session.store.list(Image)).items]
    if len(names) > 1:
        raise Failure(f"the cluster has several images: say with --image which it runs: {', '.join(names)}")
    return names[0] if names else None


async def _free_address(session: Session, nodes: Sequence[Node]) -> str:
    network = await network_of(session)
    used = {node.spec.address for node in nodes if node.spec.address}
    reserved = {item.key.removeprefix(keys.ADDRESSES) for item in (await session.kv.list(keys.ADDRESSES)).items}
    heads = {endpoint.rpartition(":")[0].rpartition("/")[2] for endpoint in session.context.endpoints}
    found = choose_address(network, used | reserved | heads, used | heads)
    if found is None:
        raise Failure(f"no address of {network.cidr} is free: give one with --address, or widen spec.network.cidr of the cluster")
    return found


async def _refuse(session: Session, mac: str) -> None:
    machine = await _find(session, mac)
    if any(node.spec.mac == mac for node in (await session.store.list(Node)).items):
        raise Failure(f"{mac} is a node: delete that with mxctl delete node, it is drained then")
    refusal = Refusal(mac=machine.mac, by=os.environ.get("USER", ""), at=session.store.clock())
    done = await session.kv.txn([absent(keys.refusal(mac))], [Put(keys.refusal(mac), refusal.to_json())])
    click.echo(f"{mac} {'refused' if done.succeeded else 'was refused before'}")


async def _find(session: Session, mac: str) -> Machine:
    seen = {machine.mac: machine for machine in await machines(session)}
    if mac not in seen:
        waiting = sorted(seen.keys() - await refusals(session)) or ["none"]
        raise Failure(f"no machine {mac} was seen; those seen are {', '.join(waiting)}; see mxctl get nodes")
    return seen[mac]


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise Failure(f"label {text!r}: write KEY=VALUE")
    return key, value
