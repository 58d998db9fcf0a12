"""``mxctl head``: makes this machine the head of a cluster. It needs no context; it writes one."""

import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import psutil

from mxctl.core.failures import Failure
from mxctl.core.verb import Verb

if TYPE_CHECKING:
    from clip.setup.config import HeadConfig
    from clip.setup.steps import Tree
    from clip.setup.units import Unit
    from store.context import Context

INIT = """
# on the machine that is to be the head, as root:
mxctl head init --address 10.0.0.1
mxctl head init --address 10.0.0.1 --dhcp proxy
# what that would do:
mxctl head init --address 10.0.0.1 --dry-run
# after a change of /etc/mx/head.yaml, or to renew certificates:
mxctl head init
"""
ETCD_SECONDS = 60.0
_OPTIONS = ("cluster", "address", "interface", "dhcp", "shared", "images", "state", "etcd")


@click.group(short_help="Make this machine the head of a cluster")
def head() -> None:
    """The head has etcd, the reconciler, and what machines boot from. Its configuration is /etc/mx/head.yaml."""


@head.command(cls=Verb, examples=INIT)
@click.option("--address", metavar="IPV4", help="Our address in the machines' network.")
@click.option("--interface", metavar="CARD", help="Our network card there; the one that has the address.")
@click.option("--cluster", metavar="NAME", help='What the context is called; "rack" unless said otherwise.')
@click.option("--dhcp", type=click.Choice(["own", "proxy"]), help="proxy: a DHCP server that is there gives the addresses.")
@click.option("--shared", metavar="DIR", help="The file system that all nodes see; /shared unless said otherwise.")
@click.option("--images", metavar="DIR", help="The shelf of image layers.")
@click.option("--state", metavar="DIR", help="The boot service's files, and what nodes keep over reboots.")
@click.option("--etcd", metavar="FILE", help="etcd's program, 3.5.30 or later.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--root", type=click.Path(path_type=Path), default=Path("/"), help="Write into this tree, and start nothing.")
def init(dry_run: bool, root: Path, **given: str | None) -> None:
    """Make this machine (Debian 12 or 13) the head: authority and certificates, etcd, reconciler, mx-clip, mx-join, dnsmasq and NFS
    as hardened systemd units, and a context for mxctl.

    It may be run again at any time: it does what differs, and says so. What is given here stands in /etc/mx/head.yaml afterwards.
    """
    from clip.errors import ClipError
    from store.errors import StoreError

    try:
        _init(dry_run, root, {name: given[name] for name in _OPTIONS if given[name] is not None})
    except (ClipError, StoreError, OSError) as error:
        raise Failure(str(error)) from error


def _init(dry: bool, root: Path, given: dict[str, str | None]) -> None:
    from clip.setup import steps
    from clip.setup.units import units

    told: list[str] = []

    def say(line: str) -> None:
        told.append(line)
        click.echo(line)

    tree = steps.Tree(root.absolute(), dry, say)
    config = _config(tree, {name: value for name, value in given.items() if value})
    paths = _paths()
    if tree.is_machine:
        steps.check_machine(config, _cards(), [sys.executable, *paths])
    wanted = units(config, paths, sys.executable)
    changed = {unit.name for unit in steps.write_files(tree, config, wanted)}
    renewed = steps.write_certificates(tree, config)
    changed |= {f"mx-{name}" for name in renewed} | ({"mx-join"} if "clip" in renewed else set())
    if tree.is_machine:
        _begin(config, steps.has_systemd(), changed, wanted)
    if not told:
        click.echo("nothing differs")


def _config(tree: "Tree", given: dict[str, object]) -> "HeadConfig":
    """What the file says, changed by what is given."""
    from clip.setup import config as configs
    from clip.setup import steps

    there = configs.load(tree.at(configs.FILE))
    values = {**(there.to_data() if there else {}), **given}
    if "address" not in values:
        raise Failure(f"--address is missing: our address in the machines' network; this machine has {_addresses()}")
    if "interface" not in values or ("address" in given and "interface" not in given and tree.root == Path("/")):
        values["interface"] = steps.card_of(str(values["address"]), _cards())
    if there is None and "etcd" not in values and tree.root == Path("/"):
        values["etcd"] = steps.find_etcd(tree, str(values.get("images", configs.HeadConfig.model_fields["images"].default)))
    return configs.make(values)


def _begin(config: "HeadConfig", systemd: bool, changed: set[str], wanted: "list[Unit]") -> None:
    """Starts the services, holds etcd to its rights, writes the context."""
    import asyncio

    from clip.setup import steps

    if systemd:
        steps.start(wanted, sorted(changed), click.echo)
    context = _context(config)
    if asyncio.run(_secure(context, ETCD_SECONDS if systemd else 1.0)):
        click.echo("secured etcd: it answers certificates only")
    _remember(context)


async def _secure(context: "Context", seconds: float) -> bool:
    """True when it was not, before."""
    import asyncio

    from clip.setup.steps import ADMIN
    from crds.organisations import person
    from store.context import connect
    from store.errors import Unavailable
    from store.rights import EtcdRights

    kv = await connect(context, timeout=2.0)
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    rights = EtcdRights(kv.channel)
                    if await rights.enabled():
                        return False
                    await rights.secure([person(ADMIN)])
                    return True
                except Unavailable:
                    await asyncio.sleep(0.2)
    except TimeoutError as error:
        where = context.endpoints[0]
        raise Failure(
            f"etcd at {where} does not answer: start the units (journalctl -u mx-etcd says why not), then run mxctl head init again"
        ) from error
    finally:
        await kv.close()


def _context(config: "HeadConfig") -> "Context":
    from clip.setup.steps import ADMIN
    from clip.setup.units import AUTHORITY
    from store.context import Context

    files = {"ca": "ca.crt", "certificate": f"{ADMIN}.crt", "key": f"{ADMIN}.key"}
    places = {name: f"{AUTHORITY}/{file}" for name, file in files.items()}
    return Context(name=config.cluster, endpoints=[config.endpoint], shared=config.shared, **places)


def _remember(context: "Context") -> None:
    from store.context import changing

    with changing() as contexts:
        if any(other.name == context.name and other == context for other in contexts.contexts):
            return
        contexts.put(context)
    click.echo(f'context "{context.name}" is current; next: mxctl doctor, and mxctl apply with your Cluster, Images and Nodes')


def _cards() -> dict[str, list[str]]:
    """Network card -> its IPv4 addresses."""
    return {card: [each.address for each in its if each.family == socket.AF_INET] for card, its in psutil.net_if_addrs().items()}


def _addresses() -> str:
    found = [f"{address} on {card}" for card, its in _cards().items() for address in its if card != "lo"]
    return ", ".join(found) or "none"


def _paths() -> list[str]:
    """Where Python finds our packages and those we need, ours first."""
    from importlib.util import find_spec

    needed = ("clip", "grpc", "google.protobuf", "pydantic", "psutil", "yaml", "aiohttp", "cryptography", "tenacity", "rich")
    found = [find_spec(package) for package in needed]
    files = [(Path(spec.origin), spec.name.count(".") + 2) for spec in found if spec is not None and spec.origin]
    return list(dict.fromkeys(str(file.parents[depth - 1]) for file, depth in files))
