"""What is made of a picture of processes: one obstacle for what criu cannot move, nothing for what it can."""

import os
import stat
from dataclasses import replace

import pytest

from nodeagent.locks import Lock
from nodeagent.preflight.look import MOST, judge
from nodeagent.preflight.scene import Descriptor, Mapping, Process, Scene, Socket

HOME = {"mnt": "mnt:[1]", "net": "net:[2]", "time": "time:[3]"}
SOCKET = Descriptor(3, "socket:[10]", stat.S_IFSOCK)


def process(*descriptors: Descriptor, name: str = "prog", maps: tuple[Mapping, ...] = (), **more: object) -> Process:
    return Process(7, 2, name, descriptors=descriptors, mappings=maps, **{"namespaces": HOME, **more})  # type: ignore[arg-type]


def reasons(*processes: Process, sockets: dict[int, Socket] | None = None) -> list[str]:
    return [each.reason for each in judge(Scene(processes, sockets or {}, home=HOME))]


def device(path: str, major: int, minor: int) -> Descriptor:
    return Descriptor(4, path, stat.S_IFCHR, device=os.makedev(major, minor))


def anonymous(kind: str) -> Descriptor:
    return Descriptor(5, f"anon_inode:{kind}", 0)


@pytest.mark.parametrize(
    "held",
    [
        Descriptor(0, "/dev/null", stat.S_IFCHR, device=os.makedev(1, 3)),
        device("/dev/urandom", 1, 9),
        device("/dev/pts/0", 136, 0),
        device("/dev/ptmx", 5, 2),
        Descriptor(1, "/shared/output.log"),
        Descriptor(3, "pipe:[12]", stat.S_IFIFO),
        *(anonymous(kind) for kind in ("[eventfd]", "[eventpoll]", "[signalfd]", "[timerfd]", "inotify", "[pidfd]")),
    ],
)
def test_what_moves_is_no_obstacle(held: Descriptor) -> None:
    assert reasons(process(held)) == []


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (anonymous("[io_uring]"), "IoUring"),
        (anonymous("[perf_event]"), "UnsupportedDescriptor"),
        (anonymous("[userfaultfd]"), "UnsupportedDescriptor"),
        (device("/dev/net/tun", 10, 200), "DeviceFile"),
        (device("/dev/kvm", 10, 232), "DeviceFile"),
        (device("/dev/mem", 1, 1), "DeviceFile"),
        (device("/dev/nvidia0", 195, 0), "Gpu"),
        (device("/dev/dri/renderD128", 226, 128), "Gpu"),
        (Descriptor(3, "/dev/vda", stat.S_IFBLK), "UnsupportedDescriptor"),
    ],
)
def test_what_stays_is_one(held: Descriptor, reason: str) -> None:
    [found] = judge(Scene((process(held),), home=HOME))
    assert found.reason == reason and "prog (pid 2)" in found.message and "\n" not in found.message


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("anon_inode:[io_uring]", ["IoUring"]),
        ("/dev/nvidiactl", ["Gpu"]),
        ("/dev/uio0", ["DeviceFile"]),
        ("/dev/zero (deleted)", []),
        ("/dev/shm/queue", []),
        ("/usr/lib/libc.so.6", []),
    ],
)
def test_what_is_only_mapped_counts_too(target: str, expected: list[str]) -> None:
    assert reasons(process(maps=(Mapping(target, "00:01"),))) == expected


def test_users_of_io_uring_are_told_the_switch() -> None:
    [found] = judge(Scene((process(anonymous("[io_uring]"), name="node"),), home=HOME))
    assert "mxctl run --no-io-uring" in found.message


def test_unix_socket_to_a_stranger() -> None:
    sockets = {10: Socket("unix", "03", "", peer=99)}
    assert reasons(process(SOCKET), sockets=sockets) == ["ExternalUnixSocket"]


def test_whoever_is_attached_is_no_obstacle() -> None:
    sockets = {10: Socket("unix", "03", "/run/mx-job/job", peer=99)}
    assert reasons(process(SOCKET), sockets=sockets) == []


def test_unix_socket_within_the_job() -> None:
    sockets = {10: Socket("unix", "03", peer=11), 11: Socket("unix", "03", peer=10)}
    other = process(Descriptor(3, "socket:[11]", stat.S_IFSOCK))
    assert reasons(process(SOCKET), other, sockets=sockets) == []


def test_unix_socket_that_lost_its_peer() -> None:
    assert reasons(process(SOCKET), sockets={10: Socket("unix", "03", peer=0)}) == []


def test_socket_of_a_family_that_criu_does_not_dump() -> None:
    assert reasons(process(SOCKET), sockets={10: Socket("family 40")}) == ["UnsupportedSocket"]


def test_socket_that_was_closed_while_we_looked() -> None:
    assert reasons(process(SOCKET)) == []


HERE, THERE = "10.0.0.1:5000", "10.0.0.9:80"


@pytest.mark.parametrize(
    ("sockets", "expected"),
    [
        ([Socket("tcp", "01", HERE, THERE)], ["ExternalConnection"]),
        ([Socket("tcp", "08", HERE, THERE)], ["ExternalConnection"]),
        ([Socket("tcp", "01", "127.0.0.1:5000", "127.0.0.1:80")], ["ExternalConnection"]),
        ([Socket("tcp", "08", "127.0.0.1:5000", "127.0.0.1:80")], []),
        ([Socket("tcp", "01", "127.0.0.1:5000", "127.0.0.1:80"), Socket("tcp", "01", "127.0.0.1:80", "127.0.0.1:5000")], []),
        ([Socket("tcp", "01", "127.0.0.1:5000", "127.0.0.1:80"), Socket("tcp", "0A", "0.0.0.0:80", "0.0.0.0:0")], []),
        ([Socket("tcp", "01", "[::1]:5000", "[::1]:80"), Socket("tcp", "0A", "[::]:80", "[::]:0")], []),
        ([Socket("tcp", "0A", "0.0.0.0:80", "0.0.0.0:0"), Socket("udp", "07", "[::]:53", "[::]:0")], []),
        ([Socket("tcp", "0A", HERE, "0.0.0.0:0")], ["NodeAddress"]),
        ([Socket("udp", "01", HERE, THERE)], ["NodeAddress"]),
        ([Socket("tcp", "01", HERE, "10.0.0.1:80"), Socket("tcp", "01", "10.0.0.1:80", HERE)], ["NodeAddress", "NodeAddress"]),
        ([Socket("tcp")], []),
    ],
)
def test_connections_and_addresses_of_the_node(sockets: list[Socket], expected: list[str]) -> None:
    numbered = dict(enumerate(sockets, 10))
    holder = process(*(Descriptor(n, f"socket:[{n}]", stat.S_IFSOCK) for n in numbered))
    assert reasons(holder, sockets=numbered) == expected
    assert judge(Scene((holder,), numbered, own_network=True, home=HOME)) == [], "its own network goes along"
    elsewhere = replace(holder, namespaces={**HOME, "net": "net:[9]"})
    assert reasons(elsewhere, sockets=numbered) == [], "criu makes that network again"


def test_a_connection_to_another_job_of_the_node_is_outside() -> None:
    both = {10: Socket("tcp", "01", "127.0.0.1:5000", "127.0.0.1:80"), 11: Socket("tcp", "01", "127.0.0.1:80", "127.0.0.1:5000")}
    assert reasons(process(Descriptor(10, "socket:[10]", stat.S_IFSOCK)), sockets=both) == ["ExternalConnection"]


def test_traced() -> None:
    assert reasons(process(tracer=4)) == ["Traced"]


def test_namespaces_of_its_own() -> None:
    inside = {**HOME, "mnt": "mnt:[9]", "time": "time:[9]"}
    [found] = judge(Scene((process(namespaces=inside),), home=HOME))
    assert found.reason == "OwnNamespace" and "a mount namespace" in found.message, "criu itself makes the time namespace"


def test_namespaces_that_criu_makes_again() -> None:
    whole = {**HOME, "ipc": "ipc:[9]", "uts": "uts:[9]", "net": "net:[9]"}
    other = Process(8, 3, "child", namespaces=whole)
    assert judge(Scene((process(namespaces=whole), other), home={**HOME, "ipc": "ipc:[1]"})) == []
    [found] = judge(Scene((process(namespaces=whole), replace(other, namespaces={**whole, "ipc": "ipc:[8]"})), home=HOME))
    assert found.message.startswith("child (pid 3) has made a IPC namespace")


def test_daemon_that_outlived_the_leader_of_its_session() -> None:
    child = Process(8, 3, "daemon", namespaces=HOME, session=9)
    assert reasons(process(session=2), child) == ["OrphanedSession"]
    assert reasons(process(session=2), replace(child, session=2)) == []
    assert reasons(process(session=0)) == []


CHANGED, IMAGE = 200.0, 100.0


@pytest.mark.parametrize(
    ("held", "image_time", "expected"),
    [
        (Descriptor(3, "/etc/hosts", changed=CHANGED), IMAGE, ["NodeLocalFile"]),
        (Descriptor(3, "/etc/hosts", changed=50.0), IMAGE, []),
        (Descriptor(3, "/etc/hosts", writable=True, changed=50.0), IMAGE, []),
        (Descriptor(3, "/etc/hosts", changed=CHANGED), None, []),
        (Descriptor(3, "/etc/hosts", writable=True, changed=CHANGED), None, ["NodeLocalFile"]),
        (Descriptor(3, "/var/lib/x", changed=50.0), None, ["NodeLocalFile"]),
        (Descriptor(3, "/var/tmp/x (deleted)", links=0, changed=CHANGED), IMAGE, []),
        (Descriptor(3, "/var/tmp/x (deleted)", links=1, changed=CHANGED), IMAGE, ["NodeLocalFile"]),
        (Descriptor(3, "/tmp/x", changed=CHANGED), IMAGE, []),
        (Descriptor(3, "/tmpx", changed=CHANGED), IMAGE, ["NodeLocalFile"]),
        (Descriptor(3, "/var/log", stat.S_IFDIR, changed=CHANGED), IMAGE, []),
        (Descriptor(3, "/srv/data", stat.S_IFDIR, changed=CHANGED), IMAGE, ["NodeLocalFile"]),
        (Descriptor(3, "/memfd:x (deleted)", links=0, size=1 << 40), IMAGE, []),
        (Descriptor(3, "/shared/x (deleted)", links=0, size=1 << 40), IMAGE, ["BigDeletedFile"]),
    ],
)
def test_files(held: Descriptor, image_time: float | None, expected: list[str]) -> None:
    assert [each.reason for each in judge(Scene((process(held),), image_time=image_time, home=HOME))] == expected


def test_mapped_files() -> None:
    maps = (Mapping("/usr/lib/mine.so", "00:29", changed=CHANGED), Mapping("/usr/lib/old.so (deleted)", "00:29"))
    [found] = judge(Scene((process(maps=maps),), image_time=IMAGE, home=HOME))
    assert found.reason == "NodeLocalFile" and "/usr/lib/mine.so (mapped)" in found.message


@pytest.mark.parametrize(
    ("kind", "mode", "contended", "expected"),
    [
        ("FLOCK", "WRITE", False, []),
        ("FLOCK", "WRITE", True, ["ContendedLock"]),
        ("POSIX", "READ", True, []),
        ("LEASE", "WRITE", False, ["FileLease"]),
    ],
)
def test_locks(kind: str, mode: str, contended: bool, expected: list[str]) -> None:
    lock = Lock(7, 3, kind, mode, "fe:00:12")
    waited = frozenset({"fe:00:12"}) if contended else frozenset()
    assert [each.reason for each in judge(Scene((process(),), home=HOME, locks=(lock,), contended=waited))] == expected


@pytest.mark.parametrize(
    ("ids", "one_user", "expected"),
    [
        ([{(0, 0)}, {(1000, 1000)}], True, ["SeveralUsers"]),
        ([{(1000, 1000), (0, 1000)}], True, ["SeveralUsers"]),
        ([{(1000, 1000)}, {(1000, 1000)}], True, []),
        ([{(0, 0)}, {(1000, 1000)}], False, []),
    ],
)
def test_several_users_where_only_one_can_be_dumped(ids: list[set[tuple[int, int]]], one_user: bool, expected: list[str]) -> None:
    processes = tuple(process(ids=frozenset(each)) for each in ids)
    assert [each.reason for each in judge(Scene(processes, home=HOME, one_user=one_user))] == expected


def test_each_is_said_once_and_not_too_many() -> None:
    same = [anonymous("[io_uring]"), Descriptor(6, "anon_inode:[io_uring]", 0)]
    assert reasons(process(*same), process(*same)) == ["IoUring"]
    many = [device(f"/dev/uio{n}", 240, n) for n in range(MOST + 5)]
    assert len(reasons(process(*many))) == MOST
