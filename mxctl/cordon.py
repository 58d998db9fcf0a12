"""``mxctl cordon`` and ``uncordon``: whether jobs may come to a node."""

import click

from crds.node import Node
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb


@click.command(cls=Verb, examples="mxctl cordon n2", short_help="Let no job come to a node any more")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.pass_obj
def cordon(settings: Settings, /, nodes: tuple[str, ...]) -> None:
    """Let no job come to these nodes any more. Those that run there stay; mxctl drain moves them away."""
    run(settings, lambda session: _set(session, nodes, True))


@click.command(cls=Verb, examples="mxctl uncordon n2", short_help="Let jobs come to a node again")
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...")
@click.pass_obj
def uncordon(settings: Settings, /, nodes: tuple[str, ...]) -> None:
    """Let jobs come to these nodes again."""
    run(settings, lambda session: _set(session, nodes, False))


async def _set(session: Session, nodes: tuple[str, ...], closed: bool) -> None:
    for name in nodes:
        await set_unschedulable(session, name, closed)


async def set_unschedulable(session: Session, name: str, closed: bool) -> None:
    """Changes the node's spec and says so. Raises NotFound."""
    before = await session.store.get(Node, name)
    word = "cordoned" if closed else "uncordoned"
    if before.spec.unschedulable == closed:
        click.echo(f"node/{name} already {word}")
        return

    def change(node: Node) -> None:
        node.spec.unschedulable = closed

    await session.store.change(Node, name, None, change)
    click.echo(f"node/{name} {word}")
