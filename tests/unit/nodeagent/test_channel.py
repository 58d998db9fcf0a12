"""The data channel over TCP, over TLS and in memory keeps its promises; and TLS turns away who cannot prove who it is."""

import asyncio
import contextlib
import ctypes
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clip.authority import Authority, serial_of
from crds.organisations import NODES
from nodeagent import tlserrors
from nodeagent.channel import Channel
from nodeagent.credentials import Credentials, Files, prepare
from nodeagent.errors import AgentError, PeerLost, Untrusted
from nodeagent.exchange import Exchange
from nodeagent.frames import Refused
from nodeagent.tcp import Dialer, TcpExchange
from tests.channel_contract import PATIENCE, ChannelContract, Doors, ProvingContract, hello, until
from tests.fakes.channel import MemoryNetwork


@contextlib.asynccontextmanager
async def serving(*doors: Exchange) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(door.serve()) for door in doors]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as made:
        yield made


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "authority", "test")


async def enrol(authority: Authority, directory: Path, node: str, *, days: float = 365) -> Files:
    """A node's key, made by itself, and the certificate for it."""
    await prepare(directory, node)
    (directory / "node.crt").write_bytes(authority.sign((directory / "node.csr").read_bytes(), node, days=days))
    (directory / "ca.crt").write_bytes((authority.directory / "ca.crt").read_bytes())
    return Files.of_node(directory)


def exchange(files: Files | None) -> TcpExchange:
    return TcpExchange("127.0.0.1", 0, hello=5, silence=5, credentials=Credentials(files) if files else None)


class TestTcp(ChannelContract):
    @pytest.fixture
    async def doors(self, pool: ThreadPoolExecutor) -> AsyncIterator[Doors]:
        async def person(peer: str, node: str) -> Channel:
            return await Dialer(None, pool, silence=5).dial(peer, organisation=NODES, node=node, timeout=PATIENCE)

        one, other = exchange(None), exchange(None)
        async with serving(one, other):
            yield Doors(one, other, False, person)


class TestTls(ProvingContract):
    @pytest.fixture
    async def doors(self, authority: Authority, tmp_path: Path, pool: ThreadPoolExecutor) -> AsyncIterator[Doors]:
        async def person(peer: str, node: str) -> Channel:
            credentials = Credentials(Files(authority.directory / "ca.crt", *authority.admin("alice")))
            return await Dialer(credentials, pool, silence=5).dial(peer, organisation=NODES, node=node, timeout=PATIENCE)

        one = exchange(await enrol(authority, tmp_path / "n1", "n1"))
        other = exchange(await enrol(authority, tmp_path / "n2", "n2"))
        async with serving(one, other):
            yield Doors(one, other, True, person)


class TestMemory(ProvingContract):
    @pytest.fixture
    async def doors(self) -> AsyncIterator[Doors]:
        network = MemoryNetwork()

        async def person(peer: str, node: str) -> Channel:
            return await network.admin().dial(peer, node=node, timeout=PATIENCE)

        one, other = network.exchange_for("n1"), network.exchange_for("n2")
        async with serving(one, other):
            yield Doors(one, other, True, person)


# --- who is turned away, and what both sides say ---


async def refused(near: TcpExchange, far: TcpExchange) -> AgentError:
    """How the caller learns that it was turned away."""
    with pytest.raises((Untrusted, PeerLost)) as caught:
        channel = await near.dial(f"127.0.0.1:{far.port}", node="n2", timeout=PATIENCE)
        try:
            await channel.send(hello(), timeout=PATIENCE)
            answer = await channel.receive(timeout=PATIENCE)
            assert isinstance(answer, Refused), answer
            raise Untrusted(answer.reason)
        finally:
            channel.close()
    return caught.value


async def check_refused(
    near: TcpExchange, far: TcpExchange, caplog: pytest.LogCaptureFixture, caller_hears: str, callee_logs: str
) -> None:
    with caplog.at_level(logging.WARNING):
        async with serving(far):
            error = await refused(near, far)
            assert isinstance(error, Untrusted), error
            assert caller_hears in str(error)
            await until(lambda: any("turned away" in line for line in caplog.messages))
    turned_away = [line for line in caplog.messages if "turned away" in line]
    assert len(turned_away) == 1
    assert callee_logs in turned_away[0] and "\n" not in turned_away[0]
    near.close()


async def test_a_caller_of_another_authority(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange = Authority.open(tmp_path / "strange", "test")
    files = await enrol(strange, tmp_path / "n1", "n1")
    files.ca.write_bytes((authority.directory / "ca.crt").read_bytes())  # it trusts us, we do not trust it
    far = exchange(await enrol(authority, tmp_path / "n2", "n2"))
    await check_refused(exchange(files), far, caplog, "does not accept our certificate", "not of this cluster's authority")


async def test_a_callee_of_another_authority(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    strange = Authority.open(tmp_path / "strange", "test")
    near = exchange(await enrol(authority, tmp_path / "n1", "n1"))
    far = exchange(await enrol(strange, tmp_path / "n2", "n2"))
    await check_refused(near, far, caplog, "not of this cluster's authority", "does not accept our certificate")


async def test_an_expired_caller(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = exchange(await enrol(authority, tmp_path / "n1", "n1", days=-1))
    far = exchange(await enrol(authority, tmp_path / "n2", "n2"))
    await check_refused(near, far, caplog, "has expired", "has expired")


async def test_a_revoked_certificate(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = [await enrol(authority, tmp_path / node, node) for node in ("n1", "n2")]
    serials = [serial_of(each.certificate.read_bytes())[0] for each in files]
    for number, (caller_hears, callee_logs) in enumerate([("was revoked", "n1 was revoked"), ("n2 was revoked", "n2")]):
        near, far = map(exchange, files)
        (far, near)[number].is_revoked = lambda serial, gone=serials[number]: serial == gone  # type: ignore[misc]
        if number == 0:
            await check_refused(near, far, caplog, caller_hears, callee_logs)
            continue
        async with serving(far):
            assert caller_hears in str(await refused(near, far))
        near.close()


async def test_an_expired_callee(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = exchange(await enrol(authority, tmp_path / "n1", "n1"))
    far = exchange(await enrol(authority, tmp_path / "n2", "n2", days=-1))
    await check_refused(near, far, caplog, "has expired", "has expired")


async def test_a_plain_caller(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    far = exchange(await enrol(authority, tmp_path / "n2", "n2"))
    await check_refused(exchange(None), far, caplog, "speaks TLS, the other does not", "does not speak TLS")


async def test_a_plain_callee(authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    near = exchange(await enrol(authority, tmp_path / "n1", "n1"))
    await check_refused(near, exchange(None), caplog, "does not speak TLS", "speaks TLS, the other does not")


async def test_a_node_without_certificate_says_what_is_missing(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And once the certificate is there the next connection uses it."""
    await prepare(tmp_path / "n1", "n1")
    near = exchange(Files.of_node(tmp_path / "n1"))
    far = exchange(await enrol(authority, tmp_path / "n2", "n2"))
    async with serving(far):
        with pytest.raises(PeerLost, match=r"no certificate yet: .*ca.crt is missing: have .*node.csr signed"):
            await near.dial(f"127.0.0.1:{far.port}", node="n2", timeout=PATIENCE)
        await enrol(authority, tmp_path / "n1", "n1")
        (await near.dial(f"127.0.0.1:{far.port}", node="n2", timeout=PATIENCE)).close()
    near.close()


async def test_a_caller_that_says_nothing_does_not_stay(authority: Authority, tmp_path: Path) -> None:
    far = TcpExchange("127.0.0.1", 0, hello=0.05, silence=5, credentials=Credentials(await enrol(authority, tmp_path / "n2", "n2")))
    async with serving(far):
        with socket.create_connection(("127.0.0.1", far.port), timeout=PATIENCE) as caller:
            caller.setblocking(False)
            async with asyncio.timeout(PATIENCE):
                assert await asyncio.get_running_loop().sock_recv(caller, 1) == b""


async def test_what_is_agreed_on(authority: Authority, tmp_path: Path) -> None:
    """TLS 1.3 and nothing older, and the key is its node's secret."""
    files = await enrol(authority, tmp_path / "n1", "n1")
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "n1").stat().st_mode & 0o777 == 0o700
    credentials = Credentials(files)
    for context in (credentials.server(), credentials.client()):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED


async def test_a_key_is_made_once(tmp_path: Path) -> None:
    await prepare(tmp_path / "n1", "n1")
    before = (tmp_path / "n1/node.key").read_bytes(), (tmp_path / "n1/node.csr").read_bytes()
    await prepare(tmp_path / "n1", "n1")
    assert before == ((tmp_path / "n1/node.key").read_bytes(), (tmp_path / "n1/node.csr").read_bytes())


async def test_an_error_that_an_older_connection_left_behind_harms_no_other(authority: Authority, tmp_path: Path) -> None:
    """OpenSSL keeps errors by thread, and Python does not always take them away: an old one would answer a call that waits."""
    try:
        library = ctypes.CDLL(tlserrors.LIBRARY)
    except OSError:
        pytest.skip(f"Python has another OpenSSL here than {tlserrors.LIBRARY}")
    near = exchange(await enrol(authority, tmp_path / "n1", "n1"))
    far = exchange(await enrol(authority, tmp_path / "n2", "n2"))
    async with serving(far):
        channel = await near.dial(f"127.0.0.1:{far.port}", node="n2", timeout=PATIENCE)
        library.ERR_new()
        library.ERR_set_error(2, errno.EPIPE, None)  # of the system: a connection that broke
        with pytest.raises(PeerLost, match="in time"):
            await channel.receive(timeout=0.1)
        channel.close()
    near.close()
