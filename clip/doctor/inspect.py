"""Collects facts of the head: asks its programs over the network, reads its files. Nothing is changed by it.

The head may be a machine (root ``/``) or a node of namespaces in a lab, whose files are seen below its first process's root.
"""

import asyncio
import os
import ssl
import struct
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from clip.cache import Shelf
from clip.doctor.model import Certificate, Disk, HeadFacts

SECONDS = 5.0
NFS_PORT = 2049
_LAST_FRAGMENT = 0x80000000
_NFS_PROGRAM, _NFS_VERSION = 100003, 4
SYSCTLS = ("net.ipv4.ip_forward",)
VERSIONS = {"dnsmasq": ["dnsmasq", "--version"], "nfs": ["ganesha.nfsd", "-v"]}


@dataclass(frozen=True, slots=True)
class HeadPlace:
    """Where a head is. ``command`` makes of a command line on the head one that we can run."""

    where: str
    server: str
    services: frozenset[str]
    backend: str = "ganesha"
    root: Path = Path("/")
    state: Path = Path("/var/lib/mx/clip")
    images: Path = Path("/var/lib/mx/images")
    shared: Path = Path("/shared")
    etcd_data: Path = Path("/var/lib/etcd")
    http_port: int = 8080
    join_port: int = 8443
    certificates: Sequence[Path] = ()
    """Files with certificates, as we see them."""
    command: Callable[[Sequence[str]], Sequence[str]] = field(default=list)

    def seen(self, path: Path) -> Path:
        """A path of the head, as we see it."""
        return self.root / str(path).lstrip("/")


async def look(place: HeadPlace) -> HeadFacts:
    """All of it at once; each look ends after some seconds."""
    asked: dict[str, Coroutine[object, object, str]] = {}
    if "clip" in place.services:
        asked["clip"] = http_answers(place.server, place.http_port)
    if "join" in place.services:
        asked["join"] = tls_answers(place.server, place.join_port)
    if "nfs" in place.services:
        asked["nfs"] = nfs_answers(place.server)
    answers = dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))
    if "dnsmasq" in place.services:
        answers["dnsmasq"] = runs(place, place.state / "dnsmasq.pid", "dnsmasq")
    programs = [name for name in VERSIONS if name in place.services and (name != "nfs" or place.backend == "ganesha")]
    versions = await asyncio.gather(*(version_of(place.command(VERSIONS[name])) for name in programs))
    return HeadFacts(
        where=place.where,
        server=place.server,
        services=place.services,
        backend=place.backend,
        answers=answers,
        versions={name: version for name, version in zip(programs, versions, strict=True) if version},
        nfs=read(place.seen(place.state / "ganesha.conf")),
        disks=tuple(disks(place)),
        layers=layers(place),
        sysctls={name: read(place.seen(Path("/proc/sys", *name.split(".")))).strip() for name in SYSCTLS},
    )


async def http_answers(host: str, port: int) -> str:
    """Why mx-clip does not answer; "". What is asked for does not exist, so that nothing is recorded."""

    async def ask() -> str:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(f"GET /images/none/none HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            line = (await reader.readline()).decode(errors="replace").split()
            return "" if line[1:2] == ["404"] else f"{host}:{port} says {' '.join(line) or 'nothing'}"
        finally:
            writer.close()

    return await _attempt(ask, f"{host}:{port}")


async def tls_answers(host: str, port: int) -> str:
    """Why nobody speaks TLS there; "". Whom it is does not matter here: those who join know its fingerprint."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

    async def ask() -> str:
        _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.close()
        return ""

    return await _attempt(ask, f"{host}:{port}")


async def nfs_answers(host: str, port: int = NFS_PORT) -> str:
    """Why no NFS server of version 4 answers the empty call; ""."""

    async def ask() -> str:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            call = struct.pack(">10I", 1, 0, 2, _NFS_PROGRAM, _NFS_VERSION, 0, 0, 0, 0, 0)
            writer.write(struct.pack(">I", _LAST_FRAGMENT | len(call)) + call)
            (length,) = struct.unpack(">I", await reader.readexactly(4))
            answer = await reader.readexactly(min(length & ~_LAST_FRAGMENT, 64))
            good = len(answer) >= 24 and struct.unpack(">6I", answer[:24])[::5] == (1, 0)  # our number; accepted, done
            return "" if good else f"{host}:{port} serves no NFS 4"
        finally:
            writer.close()

    return await _attempt(ask, f"{host}:{port}")


async def _attempt(ask: Callable[[], Coroutine[object, object, str]], where: str) -> str:
    try:
        async with asyncio.timeout(SECONDS):
            return await ask()
    except TimeoutError:
        return f"{where}: no answer within {SECONDS:.0f} s"
    except (OSError, EOFError) as error:
        return f"{where}: {getattr(error, 'strerror', None) or error}"


async def version_of(command: Sequence[str]) -> str:
    """The first number with a dot that the program says of itself; "" when it says none."""
    try:
        async with asyncio.timeout(SECONDS):
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            said, _ = await process.communicate()
    except (OSError, TimeoutError):
        return ""
    words = said.decode(errors="replace").replace("-V", " ").split()
    return next((word for word in words if word[:1].isdigit() and "." in word), "")


def runs(place: HeadPlace, pid_file: Path, program: str) -> str:
    """Why it does not run; ""."""
    number = read(place.seen(pid_file)).strip()
    if not number.isdigit():
        return f"{pid_file} names no process"
    return "" if read(place.seen(Path("/proc", number, "comm"))).strip() == program else f"process {number} is gone"


def disks(place: HeadPlace) -> Iterable[Disk]:
    """Of what the head keeps."""
    wanted = {"etcd": place.etcd_data}
    if "clip" in place.services:
        wanted |= {"images": place.images, "nodes' state": place.state, "shared": place.shared}
    for what, path in wanted.items():
        try:
            found = os.statvfs(place.seen(path))
        except OSError as error:
            yield Disk(what, str(path), error=error.strerror or str(error))
        else:
            yield Disk(what, str(path), found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)


def layers(place: HeadPlace) -> frozenset[str]:
    """What lies on the shelf, complete."""
    shelf = Shelf(place.seen(place.images))
    return frozenset(path.parent.name for path in shelf.directory.glob("*/root") if not path.parent.name.startswith("."))


def certificates(files: Iterable[Path]) -> tuple[Certificate, ...]:
    """What is in these files; one that cannot be read says so."""
    return tuple(map(_certificate, files))


def _certificate(file: Path) -> Certificate:
    try:
        found = x509.load_pem_x509_certificate(file.read_bytes())
    except (OSError, ValueError) as error:
        return Certificate(str(file), error=f"cannot be read: {getattr(error, 'strerror', None) or error}")
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(str(file), str(names[0].value) if names else "nobody", found.not_valid_after_utc)


def read(path: Path) -> str:
    """ "" when it is not there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
