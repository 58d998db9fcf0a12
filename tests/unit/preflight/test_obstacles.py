"""What is made of a picture of processes: one obstacle for what criu cannot move, nothing for what it can."""

import os
import stat

import pytest

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


def test_node_js_is_told_its_own_switch() -> None:
    [found] = judge(Scene((process(anonymous("[io_uring]"), name="node"),), home=HOME))
    assert "UV_USE_IO_URING=0 in spec.env" in found.message


def test_unix_socket_to_a_stranger() -> None:
    sockets = {10: Socket("unix", "03", "", peer=99)}
    assert reasons(process(SOCKET), sockets=sockets) == ["ExternalUnixSocket"]


def test_unix_socket_within_the_job() -> None:
    sockets = {10: Socket("unix", "03", peer=11), 11: Socket("unix", "03", peer=10)}
    other = process(Descriptor(3, "socket:[11]", stat.S_IFSOCK))
    assert reasons(process(SOCKET), other, sockets=sockets) == []


def test_unix_socket_that_lost_its_peer() -> None:
    assert reasons(process(SOCKET), sockets={10: Socket("unix", "03", peer=0)}) == []


def test_socket_of_a_family_nobody_knows() -> None:
    assert reasons(process(SOCKET)) == ["UnsupportedSocket"]


def test_traced() -> None:
    assert reasons(process(tracer=4)) == ["Traced"]


def test_namespaces_of_its_own() -> None:
    inside = {**HOME, "net": "net:[9]", "time": "time:[9]"}
    [found] = judge(Scene((process(namespaces=inside),), home=HOME))
    assert found.reason == "OwnNamespace" and "a network namespace" in found.message, "criu itself makes the time namespace"


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
