"""``python -m nodeagent --node n1 --endpoints 10.0.0.1:2379``: the agent of one node. SIGTERM ends it, jobs go on."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from nodeagent import facts
from nodeagent.admission import read_line, until_admitted
from nodeagent.agent import Agent
from nodeagent.cgroups import Cgroups
from nodeagent.config import DATA_PORT, Config, Timing
from nodeagent.credentials import prepare, until_signed
from nodeagent.errors import AgentError, EngineFailed
from nodeagent.footprint import keep_small, let_go
from nodeagent.hooks import Hooks
from nodeagent.links import BRIDGE
from nodeagent.load import LoadSampler
from nodeagent.namespaces import NamespaceEngine
from nodeagent.speed import speed_of
from nodeagent.tmpfs import mount_images
from store.errors import StoreError
from store.etcd import EtcdKV
from store.etcd_channel import Tls

log = logging.getLogger("nodeagent")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line. Ends the process with 2 and a message when it is wrong."""
    parser = argparse.ArgumentParser(prog="mx-nodeagent", description="Runs and moves jobs on one node.")
    parser.add_argument("--node", required=True, help="name of this node")
    parser.add_argument("--endpoints", required=True, help="etcd, HOST:PORT[,HOST:PORT...]")
    parser.add_argument("--state", type=Path, default=Path("/var/lib/mx/agent"), help="survives reboots (default: %(default)s)")
    parser.add_argument("--run", type=Path, default=Path("/run/mx"), help="a tmpfs (default: %(default)s)")
    parser.add_argument("--shared", type=Path, default=Path("/shared"), help="the same on all nodes (default: %(default)s)")
    parser.add_argument("--address", help="address at which peers reach the data channel (default: the first found)")
    parser.add_argument("--port", type=int, default=DATA_PORT, help="port of the data channel (default: %(default)s)")
    channel = parser.add_mutually_exclusive_group(required=True)
    channel.add_argument(
        "--tls", type=Path, metavar="DIR", help="key and certificates, for etcd and other nodes; the key is made there"
    )
    channel.add_argument("--insecure", action="store_true", help="no TLS: whoever reaches it is believed")
    parser.add_argument("--head", metavar="HOST:PORT", default="", help="mx-join, which renews the certificate")
    invited = "text with the words mx.join=, mx.ca=, mx.token=, as the boot service writes them: how to get a certificate"
    parser.add_argument("--invited", type=Path, metavar="FILE", help=invited)
    parser.add_argument("--bridge", default=BRIDGE, help="plugs in jobs with a network of their own (default: %(default)s)")
    hosts = "gets the names of these jobs (default: %(default)s)"
    parser.add_argument("--hosts", type=Path, default=Path("/etc/hosts"), help=hosts)
    lease = "seconds the node may be silent before its jobs stand still and it is missed (default: %(default)g, at least 3)"
    parser.add_argument("--lease", type=_lease, default=Timing().lease, metavar="SECONDS", help=lease)
    parser.add_argument("--verbose", action="store_true", help="say more")
    return parser.parse_args(arguments)


def _lease(text: str) -> float:
    seconds = float(text)
    if not 3 <= seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text}: give 3 to 600 seconds")
    return seconds


async def run(options: argparse.Namespace, hooks: Hooks | None = None) -> None:
    """Until SIGTERM or SIGINT."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    config = Config(
        node=options.node,
        state=options.state,
        run=options.run,
        shared=options.shared,
        address=options.address or facts.first_address(),
        port=options.port,
        hosts=options.hosts,
        tls=options.tls,
        head=options.head,
        timing=Timing(lease=options.lease),
    )
    cgroups = Cgroups()
    cgroups.prepare()
    await asyncio.to_thread(mount_images, config.images, config.run / "copies")
    engine = NamespaceEngine(config.run, config.shared, cgroups, bridge=options.bridge)
    async with asyncio.TaskGroup() as group:
        speed = group.create_task(asyncio.to_thread(speed_of, config.state, facts.processor_name(facts.read_cpuinfo())))
        group.create_task(_try_criu(engine))  # seconds on a machine that boots, which waits for its certificate meanwhile
        tls, config = await _enrolled(config, options.invited)
    kv = EtcdKV.connect([part.strip() for part in options.endpoints.split(",")], tls=tls)
    small = asyncio.create_task(let_go(), name="footprint")
    try:
        image, assigned = facts.image_digest(), facts.assigned_digest()
        root = image or config.node  # nobody else has the files of a machine that runs no image
        found = partial(Agent, image=image, assigned=assigned, root=root, speed=speed.result())
        await found(config, kv, engine, LoadSampler(cgroups), hooks=hooks).run()
    finally:
        small.cancel()
        await kv.close()


async def _try_criu(engine: NamespaceEngine) -> None:
    """The engine remembers what criu can do here. Who asks for it next is told what is wrong."""
    with contextlib.suppress(EngineFailed):
        await engine.version()
        await engine.features()


async def _enrolled(config: Config, invited: Path | None) -> tuple[Tls | None, Config]:
    """What we prove ourselves to etcd with, as soon as the authority has signed it; jobs need nobody until then."""
    directory = config.tls
    if directory is None:
        return None, config
    await prepare(directory, config.node)
    booted = read_line(invited.read_text(encoding="utf-8")) if invited else None
    if booted is not None:
        config = replace(config, head=await until_admitted(directory, booted))
    await until_signed(directory)
    return Tls.of(directory, "node"), config


def main(arguments: Sequence[str] | None = None, hooks: Hooks | None = None) -> int:
    """0 after a signal, 1 with one line for what stopped it. ``hooks`` are for tests that start an agent of their own."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    level = logging.DEBUG if options.verbose else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")
    keep_small()
    failed = 0
    try:
        with contextlib.suppress(asyncio.CancelledError):
            asyncio.run(run(options, hooks))
    except* (AgentError, StoreError, OSError) as errors:
        failed = 1
        for error in errors.exceptions:
            print(f"mx-nodeagent: {error}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
