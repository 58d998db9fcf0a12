"""The doctor's checks: facts in, findings out."""

import asyncio
import struct
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clip.doctor import cluster, etcd, head, inspect, nodes
from clip.doctor.checks import CHECKS, examine
from clip.doctor.model import Certificate, Disk, EtcdFacts, Facts, HeadFacts, Level, NodeFacts
from crds import keys
from crds.assignment import Assignment
from crds.cluster import NetworkSpec
from crds.image import Image, ImageStatus, Revision
from crds.join import Issued, JoinRecord, JoinState, Proof
from crds.load import Alive, LoadVector, MountFacts, SystemFacts
from crds.machine import Machine
from crds.meta import Metadata, Truth, set_condition
from crds.node import BOOTED, IMAGE_DRIFT, READY
from store.kv import Put
from store.memory import MemoryKV
from store.store import Store
from tests.resources import node

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
WELL = EtcdFacts(version="3.5.33", size=1 << 20, secured=True)
REVISION = Revision(number=1, digest="d1", layers=["agent-1", "base-1"], boot="boot-1", kernel="6.12", built=NOW, recipe="r1")
HEAD = HeadFacts(
    where="h",
    server="10.77.0.1",
    services=frozenset({"etcd", "clip", "dnsmasq", "nfs", "join"}),
    backend="ganesha",
    answers={"clip": "", "nfs": ""},
    nfs="Minor_Versions = 0, 1; Only_Numeric_Owners = true;",
    disks=(Disk("etcd", "/var/lib/etcd", 50 << 30, 100 << 30),),
    layers=frozenset({"agent-1", "base-1", "boot-1"}),
)


def heard(name: str, *, ready: bool = True, clock: float | None = 0.1, unguarded: str = "", **alive: object) -> NodeFacts:
    one = node(name)
    truth, message = (Truth.TRUE, "") if ready else (Truth.FALSE, "no heartbeat")
    one.status.conditions = set_condition(one.status.conditions, READY, truth, "R", message, NOW)
    known = {"criu": "4.2.1", "kernel": "6.12", "cpu_flags": "avx sse2", "features": ["post-copy"]} | alive
    said = Alive.model_validate({"boot_id": "b", "agent_version": "1", "address": "a:1", "since": NOW} | known)
    return NodeFacts(one, said, LoadVector(time=NOW, unguarded=unguarded), clock)


def facts(*members: NodeFacts, **more: object) -> Facts:
    known: dict[str, object] = {"etcd": WELL, "leader": "r1", "network": NetworkSpec(), "head": HEAD}
    return Facts(now=NOW, nodes=members, **(known | more))  # type: ignore[arg-type]


def bad(*members: NodeFacts, **more: object) -> list[tuple[str, str, str]]:
    """What is not well: level, subject, text."""
    found = [each for each in examine(facts(*members, **more)) if each.level is not Level.OK]
    assert all(each.remedy for each in found), "each says what to do"
    return [(each.level.value, each.subject, each.text) for each in found]


def test_a_cluster_that_is_well_is_told_so() -> None:
    assert bad(heard("n1"), heard("n2")) == []
    told = {each.check for each in examine(facts(heard("n1"), heard("n2")))}
    assert {"etcd", "reconciler", "head", "nodes", "clocks", "criu", "cpus", "kernel"} <= told


def test_an_etcd_that_is_away_says_nothing_of_nodes() -> None:
    found = bad(etcd=EtcdFacts(error="no connection"), leader=None, network=None)
    assert found == [("FAIL", "etcd", "does not answer: no connection")]


@pytest.mark.parametrize(
    ("version", "grave", "says"),
    [
        ("3.4.23", True, "CVE-2026-33343"),
        ("3.5.1", True, "lose"),
        ("3.5.16", True, "CVE-2026-33343"),
        ("3.5.30", False, "GHSA-xg4h"),
        ("3.6.10", True, "CVE-2026-44283"),
        ("3.6.11", False, "GHSA-xg4h"),
        ("3.4.44", False, "GHSA-xg4h"),
    ],
)
def test_known_holes_of_etcd(version: str, grave: bool, says: str) -> None:
    parsed = etcd.parse_version(version)
    assert parsed is not None
    found = etcd.holes(parsed)
    assert found[0][0] is grave and says in found[0][1]


@pytest.mark.parametrize("version", ["3.5.33", "3.6.14", "3.7.0", "4.0.1"])
def test_newer_ones_have_none_that_we_know(version: str) -> None:
    parsed = etcd.parse_version(version)
    assert parsed is not None and etcd.holes(parsed) == []


def test_etcd_alarms_size_and_rights() -> None:
    assert ("FAIL", "etcd", "alarm:NOSPACE") in bad(etcd=replace(WELL, errors=("alarm:NOSPACE",)))
    assert bad(etcd=replace(WELL, size=3 << 30))[0][0] == "FAIL"
    assert bad(etcd=replace(WELL, size=3 << 29))[0][0] == "WARN"
    assert "asks nobody" in bad(etcd=replace(WELL, secured=False))[0][2]
    assert bad(etcd=replace(WELL, secured=None, version="odd"))[0][0] == "WARN"
    assert bad(leader=None)[0][:2] == ("FAIL", "reconciler")


def test_nodes_that_are_away_unguarded_or_late() -> None:
    assert bad(heard("n1", ready=False)) == [("FAIL", "node/n1", "not Ready: no heartbeat")]
    stuck = heard("n1", ready=False)
    stuck.node.status.conditions = set_condition(stuck.node.status.conditions, BOOTED, Truth.FALSE, "Stuck", "no kernel", NOW)
    assert bad(stuck) == [("FAIL", "node/n1", "not Ready: no kernel")]
    asleep = heard("n1", ready=False)
    asleep.node.status.asleep = True
    assert bad(asleep) == []
    assert bad(heard("n1", unguarded="no guard runs")) == [("WARN", "node/n1", "no guard runs")]
    assert bad(heard("n1", clock=-3.0))[0] == ("WARN", "node/n1", "its clock is 3.0 s behind this machine's")
    assert bad(heard("n1", clock=90.0))[0][0] == "FAIL"
    assert bad(heard("n1", clock=None)) == []


def test_nodes_that_differ() -> None:
    assert ("FAIL", "node/n2", "criu does not work: no job can be moved") in bad(heard("n1"), heard("n2", criu=""))
    assert [level for level, *_ in bad(heard("n1"), heard("n2", criu="3.17.1"))] == ["WARN", "WARN"]
    assert "versions differ: 4.2 on n2; 4.2.1 on n1" in bad(heard("n1"), heard("n2", criu="4.2"))[0][2]
    assert bad(heard("n1"), heard("n2", features=[]))[0][1] == "nodes n2"
    lacking = bad(heard("n1"), heard("n2", cpu_flags="sse2"))
    assert lacking[0][1] == "nodes n2" and "lack avx," in lacking[0][2]
    assert "releases differ" in bad(heard("n1"), heard("n2", kernel="6.1"))[0][2]


def system(**values: str) -> SystemFacts:
    return SystemFacts(sysctls={name.replace("_", ".", 1): value for name, value in values.items()})


def test_kernel_settings() -> None:
    one, two = heard("n1", system=system(kernel_pid_max="4194304")), heard("n2", system=system(kernel_pid_max="32768"))
    assert bad(one, two) == [
        ("WARN", "nodes n2", "kernel.pid_max is 32768 there and 4194304 elsewhere: a job may not fit when it comes")
    ]
    strict = heard("n1", system=system(vm_overcommit_memory="2"))
    assert "overcommit" in bad(strict)[0][2]
    assert bad(one, one) == []


def shared(source: str = "10.0.0.1:/shared", options: str = "rw,hard,vers=4.1") -> SystemFacts:
    return SystemFacts(shared=MountFacts(source=source, type="nfs4", options=options))


def test_mount_options() -> None:
    assert bad(heard("n1", system=shared()), heard("n2", system=shared())) == []
    assert "returned zeros" in bad(heard("n1", system=shared(options="rw,hard,vers=4.2")))[0][2]
    assert "soft" in bad(heard("n1", system=shared(options="rw,soft,vers=4.1")))[0][2]
    assert "not the same" in bad(heard("n1", system=shared()), heard("n2", system=shared("10.0.0.2:/shared")))[0][2]


def test_certificates() -> None:
    def one(days: float) -> tuple[Certificate, ...]:
        return (Certificate("/etc/mx/tls/etcd.crt", "_etcd", NOW + timedelta(days=days)),)

    assert bad(certificates=one(300)) == []
    assert bad(certificates=one(10))[0][0] == "WARN"
    assert bad(certificates=one(-1))[0][0] == "FAIL"
    assert bad(certificates=(Certificate("/x", error="cannot be read: gone"),))[0] == ("FAIL", "/x", "cannot be read: gone")

    def record(days: float) -> JoinRecord:
        issued = [Issued(serial="01", until=NOW + timedelta(days=days))]
        return JoinRecord(state=JoinState.ISSUED, proof=Proof.BOOTED, key="k", node="n1", asked=NOW, certificates=issued)

    assert bad(joins=(record(20),)) == []
    assert bad(joins=(record(2),))[0][0] == "WARN" and bad(joins=(record(-1),))[0][0] == "FAIL"


def test_the_head() -> None:
    assert bad(head=replace(HEAD, answers={"nfs": "no answer"}))[0] == ("FAIL", "nfs", "does not answer: no answer")
    assert "Minor_Versions" in bad(head=replace(HEAD, nfs="Only_Numeric_Owners = true"))[0][2]
    assert bad(head=replace(HEAD, nfs=""))[0][0] == "WARN"
    assert bad(head=replace(HEAD, nfs="", backend="kernel")) == []
    disks = (Disk("etcd", "/e", 1 << 20, 1 << 40), Disk("images", "/i", 2 << 30, 1 << 40), Disk("shared", "/s", error="not there"))
    assert [level for level, *_ in bad(head=replace(HEAD, disks=disks))] == ["FAIL", "WARN", "FAIL"]
    assert "not in the cluster's network" in bad(head=replace(HEAD, server="10.1.0.1"))[0][2]
    gateway = NetworkSpec(gateway="10.77.0.1")
    assert "ip_forward" in bad(network=gateway, head=replace(HEAD, sysctls={"net.ipv4.ip_forward": "0"}))[0][2]
    assert bad(head=None) == []


def test_layers_that_nodes_boot() -> None:
    image = Image(metadata=Metadata(name="i"), status=ImageStatus(revisions=[REVISION], current=1))
    assert bad(images=(image,)) == []
    lost = replace(HEAD, layers=frozenset({"base-1", "boot-1"}))
    assert bad(images=(image,), head=lost) == [("FAIL", "image/i", "layer agent-1 is not on the shelf: nodes cannot boot it")]
    assert bad(images=(Image(metadata=Metadata(name="j")),))[0][:2] == ("WARN", "image/j")
    orphan = heard("n1")
    orphan.node.status.assigned = Assignment(image="i", revision="gone")
    assert "cannot boot" in bad(orphan, images=(image,))[0][2]


def test_drift_and_boots_that_are_stuck() -> None:
    old = heard("n1")
    old.node.status.conditions = set_condition(
        old.node.status.conditions, IMAGE_DRIFT, Truth.TRUE, "ByRollout", "image: i d0 -> i d1", NOW
    )
    assert bad(old) == [("WARN", "node/n1", "image: i d0 -> i d1")]
    machine = Machine(mac="52:54:00:77:00:01", first_seen=NOW, last_seen=NOW, problem="no driver")
    assert bad(machines=(machine,)) == [("WARN", "machine 52:54:00:77:00:01", "no driver")]


def test_no_check_is_left_out() -> None:
    assert len(CHECKS) == len(etcd.CHECKS) + len(head.CHECKS) + len(nodes.CHECKS)


# --- collecting ---


async def test_what_agents_report_is_collected_with_their_clocks() -> None:
    kv = MemoryKV()
    store = Store(kv.client())
    await store.create(node("n1"))
    await store.create(node("n2"))
    said = heard("n1").alive
    assert said is not None
    await kv.txn((), (Put(keys.alive("n1"), said.to_json()), Put(keys.LEADER, b"r1"), Put(keys.alive("n2"), b"{")))

    async def tell() -> None:
        while True:  # again and again, as agents do: the watch may begin in between
            await kv.txn((), (Put(keys.load("n1"), LoadVector(time=NOW + timedelta(seconds=5)).to_json()),))
            await asyncio.sleep(0.01)

    telling = asyncio.create_task(tell())
    found = await cluster.collect(kv.client(), lambda: NOW, clocks=30)
    telling.cancel()
    assert found.leader == "r1" and [each.name for each in found.nodes] == ["n1", "n2"]
    assert found.nodes[0].clock == 5.0 and found.nodes[1].alive is None


async def test_a_store_that_is_away_is_a_fact() -> None:
    kv = MemoryKV()
    kv.down = True
    found = await cluster.collect(kv, lambda: NOW)
    assert found.etcd.error and not found.nodes


async def test_an_nfs_server_is_asked_for_nothing() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = await reader.readexactly(44)
        assert call[16:24] == struct.pack(">2I", 100003, 4)
        answer = struct.pack(">6I", 1, 1, 0, 0, 0, 0)
        writer.write(struct.pack(">I", 0x80000000 | len(answer)) + answer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        assert await inspect.nfs_answers("127.0.0.1", port) == ""
    assert "127.0.0.1" in await inspect.nfs_answers("127.0.0.1", port)


async def test_who_says_something_else_is_no_boot_service() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readline()
        writer.write(b"HTTP/1.0 404 no\r\n\r\n" if b"/images/none/none" in asked else b"")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await inspect.http_answers("127.0.0.1", port) == ""
        assert "127.0.0.1" in await inspect.tls_answers("127.0.0.1", port)


async def test_a_head_is_looked_at_below_its_root(tmp_path: Path) -> None:
    for file, text in {
        "var/lib/mx/clip/dnsmasq.pid": "7\n",
        "proc/7/comm": "dnsmasq\n",
        "var/lib/mx/clip/ganesha.conf": "x",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    (tmp_path / "var/lib/mx/images/base-1/root").mkdir(parents=True)
    place = inspect.HeadPlace(
        "h", "127.0.0.1", frozenset({"dnsmasq"}), root=tmp_path, command=lambda line: ["echo", "version 2.90"]
    )
    found = await inspect.look(place)
    assert found.answers == {"dnsmasq": ""} and found.versions == {"dnsmasq": "2.90"}
    assert found.layers == {"base-1"} and found.nfs == "x"
    assert [disk.error for disk in found.disks] == ["No such file or directory"]
    (tmp_path / "proc/7/comm").write_text("sh\n")
    assert (await inspect.look(place)).answers["dnsmasq"] == "process 7 is gone"
