"""``mxctl lab``: a cluster on this machine, to try things out."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from clip.progress import reporting
from crds.quantity import format_cpu, human_memory
from lab import cluster, machine, model, plan
from lab.errors import LabError
from store import context as contexts
from store.errors import StoreError

DEFAULT_NAME = "lab"
_NO_TERMINAL_COLUMNS = 200

F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def plain_errors() -> Iterator[None]:
    """What a person can do something about becomes one line on stderr and exit code 1."""
    try:
        yield
    except (LabError, StoreError) as error:
        raise click.ClickException(str(error)) from error


def name_option(command: F) -> F:
    """--name, for verbs about a lab that is there."""
    return click.option("--name", metavar="LAB", help="Which lab; the only one, else that of the current context.")(command)


def chosen(name: str | None) -> str:
    """The lab that is meant: the named one, the only one, that of the current context, else the one called "lab"."""
    if name is not None:
        plan.check_name(name)
        return name
    known = model.names()
    if len(known) == 1:
        return known[0]
    current = (contexts.load().current_context or "").removeprefix("lab-")
    if current in known:
        return current
    if known and DEFAULT_NAME not in known:
        raise LabError(f"there are several labs ({', '.join(known)}); say which with --name")
    return DEFAULT_NAME


@click.group()
def lab() -> None:
    """A whole cluster on this machine: its nodes are namespaces, with real etcd, real agents, real CRIU.

    \b
    mxctl lab up --nodes 4
    mxctl lab status
    mxctl lab exec n1 -- bash
    mxctl lab down
    """


@lab.command()
@click.option("--name", metavar="LAB", default=DEFAULT_NAME, show_default=True, help="Up to 12 lower-case letters and digits.")
@click.option("--nodes", type=int, help="How many nodes made of namespaces, besides the head; 4, or none beside machines.")
@click.option("--cpus", default=plan.DEFAULT_CPUS, show_default=True, help="Cores for jobs: one value, or one for each node.")
@click.option("--memory", default=plan.DEFAULT_MEMORY, show_default=True, help="Memory limit: one value, or one for each node.")
@click.option("--packages", metavar="A,B", default="", help="Debian packages that the nodes have beside the usual ones.")
@click.option(
    "--machines", type=int, default=0, help="Bare virtual machines that boot over the network; emulated, so they are slow."
)
@click.option("--undeclared", type=int, default=0, help="Machines the cluster is not told of: see mxctl approve.")
@click.option("--firmware", type=click.Choice([each.value for each in model.Firmware]), default="bios", help="Of the machines.")
@click.option("--machine-memory", default=plan.MACHINE_MEMORY, show_default=True, help="Of each machine.")
@click.option(
    "--plain",
    type=int,
    default=0,
    metavar="N",
    help="Machines with Debian and nothing of MX, for mxctl join; the head then admits them.",
)
def up(
    name: str,
    nodes: int | None,
    cpus: str,
    memory: str,
    packages: str,
    machines: int,
    undeclared: int,
    firmware: str,
    machine_memory: str,
    plain: int,
) -> None:
    """Starts a lab, and makes it the current context.

    The cores of all nodes together must stay below this machine's. With --packages the nodes run an image of their own, which is
    built when it is wanted first and then kept for the next time.

    \b
    mxctl lab up --nodes 4
    mxctl lab up --name t --nodes 3 --cpus 0.4 --memory 1Gi
    mxctl lab up --nodes 3 --cpus 0.8,0.3,0.2 --memory 1Gi,512Mi,512Mi
    mxctl lab up --packages gcc,libc6-dev,nodejs
    mxctl lab up --machines 2 --undeclared 1
    mxctl lab up --nodes 1 --machines 1 --firmware uefi
    """
    wished = tuple(package for package in packages.split(",") if package)
    bare = plan.Machines(machines, undeclared, model.Firmware(firmware), machine_memory)
    if nodes is None:
        nodes = 0 if bare.count else 4
    with plain_errors(), reporting(f"lab {name}", cluster.phases(nodes, wished, bare, plain)) as report:
        cluster.up(name, nodes, cpus, memory, packages=wished, machines=bare, plain=plain, report=report)
    held = f", {undeclared} undeclared machines are held" if undeclared else ""
    click.echo(f"lab/{name} started, {nodes + machines} nodes{held}; context lab-{name} is current")


@lab.command()
@name_option
def status(name: str | None) -> None:
    """Shows a lab's nodes and how their services go.

    \b
    mxctl lab status
    mxctl lab status --name t
    """
    with plain_errors():
        states = cluster.status(chosen(name))
    table = Table(box=None, pad_edge=False, header_style="")
    for column in ("NODE", "POWER", "ADDRESS", "CPUS", "MEMORY", "PID", "SERVICES"):
        table.add_column(column, no_wrap=column != "SERVICES")
    for state in states:
        table.add_row(*_row(state))
    console = Console() if sys.stdout.isatty() else Console(width=_NO_TERMINAL_COLUMNS)  # one line a node, for grep
    console.print(table)


def _row(state: cluster.NodeState) -> tuple[str, ...]:
    node = state.node
    return (
        node.name,
        "on" if state.on else "off",
        node.address,
        "-" if node.cpus is None else format_cpu(node.cpus),
        "-" if node.memory is None else human_memory(node.memory),
        str(node.init.pid) if state.on and node.init else "-",
        ", ".join(_service(name, facts) for name, facts in state.services.items()) or "-",
    )


def _service(name: str, facts: dict[str, object]) -> str:
    starts = int(str(facts["starts"]))
    again = f", started {starts} times" if starts > 1 else ""
    return f"{name} ({'running' if facts['pid'] else 'waiting'}{again})"


@lab.command("list")
def list_() -> None:
    """Lists the labs of this machine.

    \b
    mxctl lab list
    """
    known = model.names()
    if not known:
        click.echo("No labs found", err=True)
    for name in known:
        click.echo(f"{name}\t{_summary(name)}")


def _summary(name: str) -> str:
    """One bad record must not hide the other labs."""
    try:
        record = model.Places(name).load()
    except LabError:
        return "broken, take it down"
    return f"{len(record.workers)} nodes\t{'up' if record.ready else 'half-built, take it down'}"


class Exec(click.Command):
    """Options may stand behind the node too, when "--" says where the command begins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.allow_interspersed_args = "--" in args
        return super().parse_args(ctx, args)


@lab.command("exec", cls=Exec, context_settings={"ignore_unknown_options": True})
@name_option
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str | None, node: str, command: tuple[str, ...]) -> None:
    """Runs a command on a node (n1, n2, …, head), as root, outside of the jobs' quota; its exit code is ours.

    \b
    mxctl lab exec n1 -- ps ax
    mxctl lab exec head -- etcdctl get --prefix /mx/ --keys-only
    """
    argv = command[1:] if command[0] == "--" and len(command) > 1 else command
    with plain_errors():
        line = cluster.exec_command(chosen(name), node, argv)
    os.execvp(line[0], line)


@lab.command()
@name_option
@click.option("-f", "--follow", is_flag=True, help="Go on showing what it says.")
@click.argument("node")
def console(name: str | None, follow: bool, node: str) -> None:
    """Shows what a machine said on its console, over all its boots.

    \b
    mxctl lab console n1
    mxctl lab console u1 -f
    """
    with plain_errors():
        path = cluster.console(chosen(name), node)
    if follow:
        os.execvp("tail", ["tail", "-n", "+1", "-F", str(path)])
    click.echo(machine.readable(path.read_bytes()) if path.exists() else "(nothing yet)", nl=False)


@lab.command("stop-node")
@name_option
@click.option("--hard", is_flag=True, help="Like a power cut: no good-bye, its peers hear nothing.")
@click.argument("node")
def stop_node(name: str | None, hard: bool, node: str) -> None:
    """Switches a node off; all that runs on it ends, its disk is kept.

    \b
    mxctl lab stop-node n2
    mxctl lab stop-node n2 --hard
    """
    with plain_errors():
        was_on = cluster.stop_node(chosen(name), node, hard=hard)
    click.echo(f"node/{node} {'stopped' if was_on else 'unchanged, it was off'}")


@lab.command("start-node")
@name_option
@click.argument("node")
def start_node(name: str | None, node: str) -> None:
    """Switches a node on again and waits for its agent.

    \b
    mxctl lab start-node n2
    """
    with plain_errors():
        was_off = cluster.start_node(chosen(name), node)
    click.echo(f"node/{node} {'started' if was_off else 'unchanged, it was on'}")


@lab.command()
@name_option
def power(name: str | None) -> None:
    """Switches a lab's nodes as mxctl power and rollouts ask for it, until Ctrl-C. On a real head mx-clip does that.

    A lab with virtual machines does it by itself.

    \b
    mxctl lab power &
    mxctl power reset n1
    """
    from lab.power import serve  # late: it imports what talks to etcd

    with plain_errors(), contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(chosen(name)))


@lab.command()
@name_option
def down(name: str | None) -> None:
    """Takes a lab down and removes everything it had, its disks and /shared too. Also mends a lab that is half up.

    \b
    mxctl lab down
    mxctl lab down --name t
    """
    with plain_errors():
        which = chosen(name)
        was_there = cluster.down(which)
    click.echo(f"lab/{which} {'removed' if was_there else 'unchanged, there is none'}")
