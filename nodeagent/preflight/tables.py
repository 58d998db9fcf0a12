"""The sockets of a network namespace, from the tables in /proc/PID/net and, for the peers of unix sockets, from sock_diag(7).

/proc/net/unix does not say who is connected to whom; the kernel's socket diagnosis does. It is asked for the job's own only.
"""

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from nodeagent.borrow import borrowed
from nodeagent.preflight.scene import Socket

T = TypeVar("T")

INET = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLMSG_ERROR = 1, 2
UDIAG_SHOW_PEER, UNIX_DIAG_PEER = 4, 2
HEADER, REQUEST, MESSAGE, ATTRIBUTE = (
    struct.Struct("=IHHII"),
    struct.Struct("=BBHIIIII"),
    struct.Struct("=BBBBIII"),
    struct.Struct("=HH"),
)
SO_DOMAIN = 39
FAMILIES = {socket.AF_UNIX: "unix", socket.AF_INET: "tcp", socket.AF_INET6: "tcp", 16: "netlink", 17: "packet"}
ANY_COOKIE = 0xFFFFFFFF
ANSWER_SECONDS = 2.0


def read_sockets(pid: int, wanted: set[int], proc: Path, own: bool) -> dict[int, Socket]:
    """Those of the ``wanted`` inodes that are sockets of the process's network namespace; ``own``: it is another than ours."""
    found: dict[int, Socket] = {}
    for inode, each in _tables(f"{proc}/{pid}/net"):
        if inode in wanted:
            found[inode] = each
            if len(found) == len(wanted):
                break  # the other tables need not be read: that is what takes time
    connected = [inode for inode, each in found.items() if each.family == "unix" and each.state == "03"]
    if connected:
        peers = inside(f"{proc}/{pid}/ns/net", lambda: ask_peers(connected)) if own else ask_peers(connected)
        for inode, peer in peers.items():
            old = found[inode]
            found[inode] = Socket(old.family, old.state, old.local, old.remote, peer)
    return found


def _tables(directory: str) -> Iterator[tuple[int, Socket]]:
    for words in _rows(f"{directory}/unix"):
        yield int(words[6]), Socket("unix", words[5], words[7] if len(words) > 7 else "")
    for name in INET:
        for words in _rows(f"{directory}/{name}"):
            yield int(words[9]), Socket(name.rstrip("6"), words[3], read_address(words[1]), read_address(words[2]))
    for name in ("netlink", "packet"):
        for words in _rows(f"{directory}/{name}"):
            yield int(words[-1]), Socket(name)


def _rows(path: str) -> Iterable[list[str]]:
    """Without the titles; a kernel may have been built without a family."""
    try:
        text = Path(path).read_text(errors="replace")
    except OSError:
        return []
    return [line.split() for line in text.splitlines()[1:]]


def read_address(text: str) -> str:
    """ "0100007F:1F90" as 127.0.0.1:8080: words of four bytes in the machine's own order."""
    raw, _, port = text.partition(":")
    words = struct.unpack(f">{len(raw) // 8}I", bytes.fromhex(raw))
    packed = struct.pack(f"={len(words)}I", *words)
    if len(packed) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, packed)}:{int(port, 16)}"
    mapped = packed[:12] == b"\0" * 10 + b"\xff\xff"
    host = socket.inet_ntop(socket.AF_INET, packed[12:]) if mapped else f"[{socket.inet_ntop(socket.AF_INET6, packed)}]"
    return f"{host}:{int(port, 16)}"


def ask_socket(pid: int, descriptor: int, inode: int) -> dict[int, Socket]:
    """What kind of socket it is that no table shows; empty when it is closed meanwhile."""
    try:
        with borrowed(pid, descriptor) as number, socket.socket(fileno=os.dup(number)) as found:
            family = found.getsockopt(socket.SOL_SOCKET, SO_DOMAIN)
    except OSError:
        return {}
    return {inode: Socket(FAMILIES.get(family, f"family {family}"))}


def ask_peers(inodes: Iterable[int]) -> dict[int, int]:
    """The peer of each unix socket of our network namespace; 0 for one that lost it. OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG) as diagnosis:
        diagnosis.settimeout(ANSWER_SECONDS)
        return {inode: _ask_peer(diagnosis, inode) for inode in inodes}


def _ask_peer(diagnosis: socket.socket, inode: int) -> int:
    body = REQUEST.pack(socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, UDIAG_SHOW_PEER, ANY_COOKIE, ANY_COOKIE)
    diagnosis.send(HEADER.pack(HEADER.size + len(body), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST, 0, 0) + body)
    return parse_peer(diagnosis.recv(4096))


def parse_peer(answer: bytes) -> int:
    """The peer in the kernel's answer; 0 when there is none, or the socket is gone. OSError for any other refusal."""
    length, kind, _, _, _ = HEADER.unpack_from(answer)
    if kind == NLMSG_ERROR:
        number = -struct.unpack_from("=i", answer, HEADER.size)[0]
        if number == errno.ENOENT:
            return 0
        raise OSError(number, f"sock_diag: {os.strerror(number)}")
    at = HEADER.size + MESSAGE.size
    while at + ATTRIBUTE.size <= length:
        size, name = ATTRIBUTE.unpack_from(answer, at)
        if name == UNIX_DIAG_PEER:
            return int(struct.unpack_from("=I", answer, at + ATTRIBUTE.size)[0])
        at += max(ATTRIBUTE.size, (size + 3) & ~3)
    return 0


def inside(namespace: str, work: Callable[[], T]) -> T:
    """Does it in a namespace, in a thread of its own that ends then: a thread that went elsewhere is no use to others."""
    done: list[T] = []
    failed: list[OSError] = []

    def enter_and_work() -> None:
        try:
            with open(namespace, "rb") as file:  # noqa: PTH123
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(file.fileno(), 0) != 0:
                    number = ctypes.get_errno()
                    raise OSError(number, f"{namespace}: {os.strerror(number)}")
            done.append(work())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=enter_and_work, name="preflight")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
