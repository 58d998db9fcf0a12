"""The relay that encrypts memory on its way: both ends prove who they are, all passes, and it ends when either side hangs up."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from crds.placement import MoveOrder
from nodeagent.config import Config
from nodeagent.errors import MoveFailed, PeerLost
from nodeagent.pages import Door, reach

SIZE = 3 << 20


def order(**changes: object) -> MoveOrder:
    data = {"migration": "m", "source": "n1", "destination": "n2", "peer": "127.0.0.1:1", "ticket": "secret"}
    return MoveOrder.model_validate({**data, "deadline": datetime.now(UTC) + timedelta(seconds=60), **changes})


def openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ca")
    for name, cn in (("ca", "cluster"), ("other", "another")):
        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{directory}/{name}.key"]
        openssl("req", "-x509", *key, "-out", f"{directory}/{name}.crt", "-subj", f"/CN={cn}", "-days", "2")
    return directory


def config(root: Path, authority: Path | None, node: str, ca: str = "ca") -> Config:
    """Of a node with a certificate of that authority; None: without TLS."""
    if authority is None:
        return Config(node=node, run=root / node / "run")
    tls = root / node
    tls.mkdir(parents=True)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{tls}/node.key"]
    openssl("req", *key, "-out", f"{tls}/node.csr", "-subj", f"/O=mx:nodes/CN={node}")
    (tls / "ext").write_text(f"subjectAltName=DNS:{node}\n")
    signing = ["-CA", f"{authority}/{ca}.crt", "-CAkey", f"{authority}/{ca}.key", "-CAcreateserial", "-days", "2"]
    openssl("x509", "-req", "-in", f"{tls}/node.csr", *signing, "-extfile", f"{tls}/ext", "-out", f"{tls}/node.crt")
    (tls / "ca.crt").write_bytes((authority / "ca.crt").read_bytes())
    return Config(node=node, run=root / node / "run", tls=tls)


@asynccontextmanager
async def connected(here: Config, there: Config) -> AsyncIterator[tuple[socket.socket, socket.socket]]:
    """Both ends, as criu gets them."""
    with Door(there, order()) as door, await reach(here, order(), door.port) as out, await door.wire() as into:
        yield out, into


def receive(sock: socket.socket, size: int) -> bytes:
    sock.settimeout(20)
    data = bytearray()
    while len(data) < size and (piece := sock.recv(1 << 16)):
        data += piece
    return bytes(data)


@pytest.mark.parametrize("secure", [True, False], ids=["tls", "plain"])
async def test_all_passes_both_ways_and_ends_with_either_side(tmp_path: Path, authority: Path, secure: bool) -> None:
    configs = [config(tmp_path, authority if secure else None, node) for node in ("n1", "n2")]
    async with connected(*configs) as (out, into):
        data = bytes(range(256)) * (SIZE // 256)
        sending = asyncio.create_task(asyncio.to_thread(out.sendall, data))
        assert await asyncio.to_thread(receive, into, SIZE) == data
        await sending
        into.sendall(b"thanks")
        assert await asyncio.to_thread(receive, out, 6) == b"thanks"
        out.sendall(b"last words")
        out.close()
        assert await asyncio.to_thread(receive, into, 1 << 20) == b"last words"


@pytest.mark.parametrize(("name", "ca"), [("n3", "ca"), ("n1", "other")], ids=["another-node", "another-authority"])
async def test_who_is_not_the_node_of_the_order_gets_nothing(tmp_path: Path, authority: Path, name: str, ca: str) -> None:
    there, here = config(tmp_path, authority, "n2"), config(tmp_path, authority, name, ca)
    with Door(there, order()) as door:
        with pytest.raises((PeerLost, OSError)), await reach(here, order(), door.port) as out:
            assert not await asyncio.to_thread(receive, out, 1)  # TLS 1.3 tells a client only when it reads
            raise PeerLost("hung up on")
        with pytest.raises(PeerLost, match="TLS with node/n1"):
            await door.wire()


async def test_who_does_not_know_the_word_is_turned_away_and_the_source_still_gets_in(tmp_path: Path) -> None:
    there, here = config(tmp_path, None, "n2"), config(tmp_path, None, "n1")
    with Door(there, order()) as door:
        with await reach(here, order(ticket="guessed"), door.port) as stranger:
            assert await asyncio.to_thread(receive, stranger, 1) == b""
        with await reach(here, order(), door.port) as out, await door.wire() as into:
            out.sendall(b"x")
            assert await asyncio.to_thread(receive, into, 1) == b"x"


async def test_a_destination_that_offers_no_port_is_no_destination(tmp_path: Path) -> None:
    with pytest.raises(MoveFailed, match="node/n2 cannot take jobs by post-copy"):
        await reach(config(tmp_path, None, "n1"), order(), 0)
