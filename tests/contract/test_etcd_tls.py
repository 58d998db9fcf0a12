"""Mutual TLS, and certificates that are replaced while we run."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.errors import Invalid, Unavailable
from store.etcd import EtcdKV
from store.etcd_channel import Tls
from store.kv import Put
from tests.contract.conftest import TIMEOUT, Reader, eventually
from tests.contract.test_watching import until_reachable, write
from tests.etcd_server import EtcdServer


def openssl(*arguments: str, directory: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30)


def make_authority(directory: Path) -> None:
    directory.mkdir()
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *new_key, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=test authority", directory=directory)
    for name in ("server", "client"):
        issue(directory, name)


def issue(directory: Path, name: str) -> None:
    new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-new", *new_key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}", directory=directory)
    (directory / "san").write_text("subjectAltName=IP:127.0.0.1,DNS:etcd.test\n")
    by = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "san")
    openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt", *by, directory=directory)


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that the server trusts, and a stranger."""
    root = tmp_path_factory.mktemp("tls")
    make_authority(root / "ours")
    make_authority(root / "strange")
    return root / "ours", root / "strange"


@pytest.fixture(scope="module")
def server(authorities: tuple[Path, Path]) -> Iterator[EtcdServer]:
    ours = authorities[0]
    with EtcdServer.with_tls(ca=ours / "ca.crt", certificate=ours / "server.crt", key=ours / "server.key") as server:
        yield server


def tls(directory: Path) -> Tls:
    return Tls(directory / "ca.crt", directory / "client.crt", directory / "client.key")


def connect(server: EtcdServer, tls: Tls | None) -> EtcdKV:
    return EtcdKV.connect([server.endpoint], timeout=TIMEOUT, tls=tls)


async def test_a_client_with_a_certificate_gets_in(server: EtcdServer, authorities: tuple[Path, Path]) -> None:
    kv = connect(server, tls(authorities[0]))
    reader = Reader(kv, "/tls/", 0)
    await reader.until_revision(1)
    await write(kv, Put("/tls/a", b"1"))
    assert await reader.until(1) == [("a", b"1")]
    await reader.stop()
    await kv.close()


async def test_others_do_not_get_in(server: EtcdServer, authorities: tuple[Path, Path]) -> None:
    ours, strange = authorities
    stranger = Tls(ours / "ca.crt", strange / "client.crt", strange / "client.key")
    for wrong in (None, tls(strange), stranger, Tls(ours / "ca.crt")):
        kv = connect(server, wrong)
        with pytest.raises(Unavailable):
            await kv.get("/tls/a")
        await kv.close()


async def test_the_name_in_the_certificate_may_differ_from_the_address(server: EtcdServer, authorities: tuple[Path, Path]) -> None:
    files = tls(authorities[0])
    good = connect(server, Tls(files.ca, files.certificate, files.key, server_name="etcd.test"))
    bad = connect(server, Tls(files.ca, files.certificate, files.key, server_name="other.test"))
    await good.get("/tls/a")
    with pytest.raises(Unavailable):
        await bad.get("/tls/a")
    await good.close()
    await bad.close()


async def test_a_replaced_certificate_is_used_and_breaks_no_watch(
    server: EtcdServer, authorities: tuple[Path, Path], tmp_path: Path
) -> None:
    ours = authorities[0]
    files = Tls(ours / "ca.crt", tmp_path / "client.crt", tmp_path / "client.key")
    replace(tmp_path, ours)
    kv = connect(server, files)
    reader = Reader(kv, "/tls/", 0)
    await reader.until_revision(1)
    (tmp_path / "client.crt").unlink()
    await kv.get("/tls/a")  # it is being replaced
    old = kv.channel._channel
    issue(ours, "client")
    replace(tmp_path, ours)
    await write(kv, Put("/tls/b", b"2"))
    assert kv.channel._channel is not old
    assert await reader.until(1) == [("b", b"2")]
    await eventually(lambda: all_closed(kv))
    server.restart()
    await until_reachable(kv)
    await write(kv, Put("/tls/c", b"3"))
    assert await reader.until(2) == [("b", b"2"), ("c", b"3")]
    await reader.stop()
    await kv.close()


async def all_closed(kv: EtcdKV) -> bool:
    return not kv.channel._retired


async def test_missing_certificate_files_are_named(server: EtcdServer, tmp_path: Path) -> None:
    kv = connect(server, Tls(tmp_path / "nothing.crt"))
    with pytest.raises(Invalid, match=r"nothing\.crt"):
        await kv.get("/tls/a")
    await kv.close()


def replace(directory: Path, source: Path) -> None:
    for name in ("client.crt", "client.key"):
        (directory / name).write_bytes((source / name).read_bytes())
