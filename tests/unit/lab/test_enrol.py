"""Certificates of a lab's nodes: signed when they fit, never for somebody else, kept when they are good."""

from pathlib import Path

import pytest

from clip.authority import Authority, AuthorityError
from clip.registry import Registry
from lab.enrol import admin_files, enrol_in, open_authority
from lab.errors import LabError
from lab.model import Places
from nodeagent.credentials import Credentials, Files, prepare
from store.memory import MemoryKV

MAC = "52:54:00:77:00:01"


class AnyRights:
    async def admit(self, node: str) -> None: ...

    async def expel(self, node: str) -> None: ...


def registry_of(places: Places) -> Registry:
    return Registry(MemoryKV().client(), AnyRights(), open_authority(places))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places("t", tmp_path)


async def test_a_node_gets_its_certificate_once(places: Places, tmp_path: Path) -> None:
    registry, directory = registry_of(places), tmp_path / "n1"
    assert not await enrol_in(registry, directory, "n1", MAC)  # it has not asked yet
    await prepare(directory, "n1")
    assert await enrol_in(registry, directory, "n1", MAC)
    Credentials(Files.of_node(directory)).server()
    first = (directory / "node.crt").read_bytes()
    assert await enrol_in(registry_of(places), directory, "n1", MAC)
    assert (directory / "node.crt").read_bytes() == first


async def test_a_certificate_that_does_not_fit_is_replaced(places: Places, tmp_path: Path) -> None:
    registry, directory = registry_of(places), tmp_path / "n1"
    authority = registry.authority
    await prepare(directory, "n1")
    for bad in (b"nonsense", authority.sign((directory / "node.csr").read_bytes(), "n1", days=-1)):
        (directory / "node.crt").write_bytes(bad)
        assert await enrol_in(registry, directory, "n1", MAC)
        assert authority.fits((directory / "node.crt").read_bytes(), (directory / "node.csr").read_bytes())


async def test_nobody_gets_the_certificate_of_another(places: Places, tmp_path: Path) -> None:
    registry, directory = registry_of(places), tmp_path / "n1"
    authority = registry.authority
    await prepare(directory, "n2")
    with pytest.raises(LabError, match="its request is for n2: nothing was signed"):
        await enrol_in(registry, directory, "n1", MAC)
    with pytest.raises(AuthorityError, match="cannot be read"):
        authority.sign(b"nonsense", "n1")
    assert not (directory / "node.crt").exists()


def test_keys_are_for_their_owner_only(places: Places) -> None:
    open_authority(places)
    ca, certificate, key = admin_files(places)
    assert ca.exists() and certificate.exists()
    assert {path.stat().st_mode & 0o777 for path in (key, places.authority / "ca.key")} == {0o600}
    assert places.authority.stat().st_mode & 0o777 == 0o700


def test_an_authority_with_the_wrong_key_is_not_used(tmp_path: Path) -> None:
    Authority.open(tmp_path / "a", "a")
    Authority.open(tmp_path / "b", "b")
    (tmp_path / "a/ca.key").write_bytes((tmp_path / "b/ca.key").read_bytes())
    with pytest.raises(AuthorityError, match="not the key of"):
        Authority.open(tmp_path / "a", "a")
