"""Who has which certificate, and that what is taken back is worthless everywhere."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clip.authority import Authority, serial_of
from clip.registry import Registry
from crds import keys
from crds.join import JoinFacts, JoinState, Proof, Revocation
from store.kv import Put
from store.memory import MemoryKV
from tests.unit.clip.test_authority import wish

MAC, OTHER = "52:54:00:77:00:01", "52:54:00:77:00:02"


class FakeRights:
    """Notes whom etcd would let in."""

    def __init__(self) -> None:
        self.admitted: set[str] = set()

    async def admit(self, node: str) -> None:
        self.admitted.add(node)

    async def expel(self, node: str) -> None:
        self.admitted.discard(node)


class House:
    def __init__(self, directory: Path) -> None:
        self.now = datetime.now(UTC)
        self.kv, self.rights = MemoryKV().client(), FakeRights()
        authority = Authority.open(directory / "authority", "test")
        self.registry = Registry(self.kv, self.rights, authority, days=1, clock=lambda: self.now)

    async def revoked(self) -> list[str]:
        return [kv.key.removeprefix(keys.REVOKED) for kv in (await self.kv.list(keys.REVOKED)).items]


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


async def test_what_is_handed_out_is_written_down(house: House) -> None:
    request = wish("n1")
    serials = [serial_of(await house.registry.issue(request, "n1", MAC, Proof.BOOTED, JoinFacts(cpus=2)))[0] for _ in range(2)]
    record, _ = await house.registry.record(MAC)
    assert record is not None
    assert (record.state, record.node, record.facts.cpus) == (JoinState.ISSUED, "n1", 2)
    assert [each.serial for each in record.certificates] == serials
    assert house.rights.admitted == {"n1"}
    assert await house.revoked() == []  # renewed, with the same key


async def test_a_new_key_makes_the_old_certificates_worthless(house: House) -> None:
    first = serial_of(await house.registry.issue(wish("n1"), "n1", MAC, Proof.BOOTED))[0]
    second = serial_of(await house.registry.issue(wish("n1"), "n1", MAC, Proof.BOOTED))[0]
    record, _ = await house.registry.record(MAC)
    assert record is not None and [each.serial for each in record.certificates] == [second]
    assert await house.revoked() == [first]


async def test_a_removed_node_has_nothing_left(house: House) -> None:
    serial = serial_of(await house.registry.issue(wish("n1"), "n1", MAC, Proof.BOOTED))[0]
    await house.registry.issue(wish("n2"), "n2", OTHER, Proof.BOOTED)
    assert await house.registry.dismiss("n1") == [serial]
    assert await house.registry.dismiss("n1") == []
    assert await house.revoked() == [serial]
    assert (await house.registry.record(MAC))[0] is None
    assert house.rights.admitted == {"n2"}
    kv = await house.kv.get(keys.revoked(serial))
    assert kv is not None and Revocation.model_validate_json(kv.value).reason == "its node was removed"


async def test_revocations_go_when_the_certificate_has_ended(house: House) -> None:
    await house.registry.issue(wish("n1"), "n1", MAC, Proof.BOOTED)
    await house.registry.dismiss("n1")
    await house.kv.txn([], [Put(keys.revoked("00"), b"broken")])
    assert await house.registry.prune() == 0
    house.now += timedelta(days=2)
    assert await house.registry.prune() == 1
    assert await house.revoked() == ["00"]  # what cannot be read goes on revoking


async def test_a_record_that_cannot_be_read_is_written_anew(house: House) -> None:
    await house.kv.txn([], [Put(keys.join(MAC), b"broken")])
    assert (await house.registry.record(MAC))[0] is None
    await house.registry.issue(wish("n1"), "n1", MAC, Proof.BOOTED)
    record, _ = await house.registry.record(MAC)
    assert record is not None and record.node == "n1"
