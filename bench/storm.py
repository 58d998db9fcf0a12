"""A boot storm: so many machines that are switched on in one moment, against the real boot service.

    bench/storm.py                     500 machines; one line a step
    bench/storm.py --machines 100 --json

A lab's head (etcd, mx-clip, dnsmasq of the head layer) in its network namespace, with 500 declared Nodes; from another
namespace on its bridge 500 machines ask at once: by DHCP as their card's ROM does, by DHCP again as iPXE does, and over HTTP
what to boot, each over a connection of its own. Each answer is checked: own address, own kernel line. Who hears nothing asks
again after 4, 8, 16 s, as ROMs do. Then how long it takes to render everything for 64 nodes of one template. It ends with 1
when a machine was not served. Needs root.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.storming.machines import Bare, Outcome, Wire, all_ask, all_lease
from bench.storming.template import render_set
from clip import head as head_layer
from clip import image
from clip.cache import Shelf
from clip.progress import reporting
from crds.cluster import Cluster, ClusterSpec, NetworkSpec
from crds.meta import Metadata
from crds.node import Node, NodeSpec
from lab import cluster, network, node, plan
from lab.enrol import open_authority
from lab.model import BRIDGE, HEAD, HEAD_ADDRESS, Lab, LabNode, Places, Power
from lab.ready import context_of
from store.context import connect, enter_netns
from store.errors import Unavailable
from store.store import Store

NAME, CLIENTS = "storm", "c1"
CIDR = "10.77.0.0/16"
BASE = f"http://{HEAD_ADDRESS}:8080"
SECONDS = 120.0
AT_ONCE = 32
ROUNDS = 5
TEMPLATE = 64


def bare(number: int) -> Bare:
    """Machine 0, 1, 2, …"""
    return Bare(f"52:54:01:00:{number >> 8:02x}:{number & 255:02x}", f"s{number}", f"10.77.{1 + number // 250}.{1 + number % 250}")


def start() -> Places:
    """A head and a network namespace for the machines. LabError."""
    cluster.check_machine()
    cluster.down(NAME)
    places = Places(NAME)
    with reporting("storm", image.PHASES + head_layer.PHASES) as report:
        built = image.ensure(report)
        programs = head_layer.ensure(Shelf.of(places.state), platform.machine(), report)
    # what is answered does not depend on what is in the layers: nobody boots them here
    services = [plan.ETCD, *plan.boot_services(NAME, [built.agent, built.base], built.base, built.digest)]
    head = LabNode(name=HEAD, address=HEAD_ADDRESS, services=services, power=Power.ON)
    clients = LabNode(name=CLIENTS, address="10.77.0.250", mac="52:54:00:77:00:fa")
    lab = Lab(
        name=NAME,
        base=built.base,
        agent=built.agent,
        head=programs,
        config_file=str(places.directory / "none"),
        nodes=[head, clients],
    )
    places.save(lab)
    for layer in (lab.base, lab.agent, lab.head):
        Shelf.of(places.state).hold(layer, f"lab-{NAME}")
    places.shared.mkdir(mode=0o1777)
    network.create_bridge(places)
    _ip(places.netns, "address", "add", CIDR.replace("0.0/", "0.1/"), "dev", BRIDGE)
    network.plug_in(places, clients)
    _ip(places.node_netns(CLIENTS), "address", "add", f"{clients.address}/16", "dev", network.NODE_BRIDGE)
    open_authority(places)
    head.init = node.power_on(places, lab, head)
    places.save(lab)
    return places


def _ip(netns: str, *words: str) -> None:
    subprocess.run(["ip", "-n", netns, *words], check=True, timeout=30)


async def measure(places: Places, count: int) -> dict[str, Any]:
    """All of it, from inside the machines' namespace."""
    machines = [bare(number) for number in range(count)]
    enter_netns(places.node_netns(CLIENTS))
    kv = await connect(context_of(places).model_copy(update={"netns": None}))
    try:
        await _until_etcd(Store(kv))
        begun = time.perf_counter()
        await _declare(Store(kv), machines)
        declared = time.perf_counter() - begun
    finally:
        await kv.close()
    served = await _until_served(places, machines, begun)
    wire = Wire("eth0")
    await all_lease(wire, machines[-1:], ipxe=False, program="undionly.kpxe")  # answered when dnsmasq has read what it serves
    rom = await all_lease(wire, machines, ipxe=False, program="undionly.kpxe")
    ipxe = await all_lease(wire, machines, ipxe=True, program=f"{BASE}/boot")
    wire.close()
    http = [await all_ask(BASE, machines) for _ in range(ROUNDS)]
    template = min(render_set(TEMPLATE) for _ in range(3))
    return {
        "machines": count,
        "cores": os.cpu_count(),
        "declare_seconds": round(declared, 2),
        "declared_to_served_seconds": round(served, 2),
        "dhcp_rom": figures(rom),
        "dhcp_ipxe": figures(ipxe),
        "http_boot": figures(*http),
        "render_64_nodes_ms": round(template * 1e3, 2),
    }


async def _until_etcd(store: Store) -> None:
    until = time.monotonic() + SECONDS
    while True:
        try:
            await store.list(Cluster)
            return
        except Unavailable:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.1)


async def _declare(store: Store, machines: Sequence[Bare]) -> None:
    wide = NetworkSpec(cidr=CIDR, job_range=None, discovery_range="10.77.254.0/24")
    await store.create(Cluster(metadata=Metadata(name="storm"), spec=ClusterSpec(network=wide)))
    gate = asyncio.Semaphore(AT_ONCE)

    async def create(machine: Bare) -> None:
        async with gate:
            await store.create(Node(metadata=Metadata(name=machine.name), spec=NodeSpec(mac=machine.mac, address=machine.address)))

    await asyncio.gather(*map(create, machines))


async def _until_served(places: Places, machines: Sequence[Bare], begun: float) -> float:
    """Seconds from the first definition until dnsmasq and mx-clip know the last machine."""
    until = time.monotonic() + SECONDS
    while len(list((places.clip / "hosts.d").glob("[!.]*"))) < len(machines):
        if time.monotonic() > until:
            raise SystemExit(f"storm: not all machines are served: {node.log_tail(places, HEAD, 'clip')}")
        await asyncio.sleep(0.05)
    while (last := await all_ask(BASE, machines[-1:])).wrong:
        if time.monotonic() > until:
            raise SystemExit(f"storm: {last.wrong[0]}")
        await asyncio.sleep(0.05)
    return time.perf_counter() - begun


def figures(*rounds: Outcome) -> dict[str, Any]:
    """Of all machines of all rounds; the throughput is the median round's."""
    seconds = sorted(value for outcome in rounds for value in outcome.seconds)
    if not seconds:
        return {"p50_ms": None, "p99_ms": None, "per_second": 0.0, "asked_again": 0, "wrong": rounds[0].wrong[:5]}
    cut = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else [seconds[0]] * 99
    return {
        "p50_ms": round(cut[49] * 1e3, 1),
        "p99_ms": round(cut[98] * 1e3, 1),
        "most_ms": round(seconds[-1] * 1e3, 1),
        "per_second": round(statistics.median(len(outcome.seconds) / outcome.wall for outcome in rounds), 1),
        "served": len(seconds),
        "asked_again": sum(outcome.again for outcome in rounds),
        "wrong": [line for outcome in rounds for line in outcome.wrong][:5],
    }


def main() -> int:
    """0 when all were served as they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machines", type=int, default=500, help="up to 60000 (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one object")
    options = parser.parse_args()
    try:
        found = asyncio.run(measure(start(), options.machines))
    finally:
        cluster.down(NAME)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        for key, value in found.items():
            print(f"{key:<28} {value}")
    return int(any(value["wrong"] for value in found.values() if isinstance(value, dict)))


if __name__ == "__main__":
    sys.exit(main())
