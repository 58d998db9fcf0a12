"""The boot service's answers and files."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer

from clip.service.config import Config
from clip.service.files import write_all
from clip.service.ledger import Ledger
from clip.service.sighting import Message
from clip.service.web import Web
from clip.table import Revision, Row, Table
from clip.tokens import Tokens
from crds import keys
from crds.cluster import NetworkSpec
from crds.machine import Machine
from store.kv import Put
from store.memory import MemoryKV

MAC, OTHER = "52:54:00:77:00:01", "52:54:00:77:00:09"
ROW = Row("n1", MAC, "10.77.0.11", Revision("d1", ("agent-a", "base-b"), "boot-c"))
TABLE = Table(NetworkSpec(), (ROW,))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    directories = (tmp_path / "clip", tmp_path / "images", tmp_path / "shared")
    return Config(
        "10.77.0.1", "br0", "10.77.0.1:2379", *directories, join="10.77.0.1:8443", fingerprint="ab" * 32, tokens=tmp_path / "t"
    )


@pytest.fixture
def heard() -> list[Message]:
    return []


@pytest.fixture
async def client(config: Config, heard: list[Message]) -> AsyncIterator[TestClient]:  # type: ignore[type-arg]
    web = Web(config, heard.append, Tokens(config.tokens))
    web.use(TABLE, {"52:54:00:77:00:05": ("n5", "it has no address")})
    async with TestClient(TestServer(web.application())) as client:
        yield client


async def test_a_declared_machine_is_told_to_boot(client: TestClient, heard: list[Message]) -> None:  # type: ignore[type-arg]
    text = await (await client.get(f"/boot?mac={MAC}&ip=10.77.0.11&vendor=MX&else=x")).text()
    assert "\nkernel http://10.77.0.1:8080/images/boot-c/vmlinuz" in text
    assert heard == [Message(MAC, "ipxe", "10.77.0.11", "n1", "d1", "", {"vendor": "MX"})]


async def test_a_token_is_given_to_nobody_but_the_machine_itself(client: TestClient, config: Config) -> None:  # type: ignore[type-arg]
    """Who asks from another address knows a MAC, and gets a root at most."""
    text = await (await client.get(f"/boot?mac={MAC}")).text()
    assert "mx.image=d1" in text and "mx.token" not in text
    assert (await client.get(f"/invitation?mac={MAC}")).status == 403
    assert not config.tokens.exists()


async def test_each_answer_to_a_machine_has_a_token_of_its_own(config: Config) -> None:
    web = Web(config, lambda _: None, Tokens(config.tokens))
    web.use(Table(NetworkSpec(), (Row("n1", MAC, "127.0.0.1", ROW.revision),)), {})
    async with TestClient(TestServer(web.application())) as client:
        texts = [await (await client.get(f"/{path}?mac={MAC}")).text() for path in ("boot", "boot", "invitation")]
        assert (await client.get(f"/invitation?mac={OTHER}")).status == 403
    words = [dict(word.split("=", 1) for word in text.split() if word.startswith("mx.")) for text in texts]
    assert {(each["mx.join"], each["mx.ca"]) for each in words} == {("10.77.0.1:8443", "ab" * 32)}
    assert len({each["mx.token"] for each in words}) == 3
    assert Tokens(config.tokens).use(words[1]["mx.token"], MAC, "key").node == "n1"


async def test_a_full_disk_keeps_no_machine_from_booting(config: Config) -> None:
    config.tokens.write_text("in the place of the directory")
    web = Web(config, lambda _: None, Tokens(config.tokens))
    web.use(Table(NetworkSpec(), (Row("n1", MAC, "127.0.0.1", ROW.revision),)), {})
    async with TestClient(TestServer(web.application())) as client:
        text = await (await client.get(f"/boot?mac={MAC}")).text()
    assert "mx.image=d1" in text and "mx.token" not in text


async def test_the_short_address_leads_to_the_long_one(client: TestClient) -> None:  # type: ignore[type-arg]
    text = await (await client.get("/start")).text()
    assert text.startswith("#!ipxe\nchain --replace http://10.77.0.1:8080/boot?mac=${net0/mac}&")


async def test_an_unknown_machine_is_held(client: TestClient, heard: list[Message]) -> None:  # type: ignore[type-arg]
    text = await (await client.get(f"/boot?mac={OTHER.upper()}")).text()
    assert f"mxctl approve node {OTHER} --name NAME" in text
    assert heard[0].node == ""


async def test_a_machine_that_cannot_be_served_is_told_why(client: TestClient, heard: list[Message]) -> None:  # type: ignore[type-arg]
    text = await (await client.get("/boot?mac=52:54:00:77:00:05")).text()
    assert "node n5 cannot be booted: it has no address" in text
    assert heard[0].problem == "it has no address"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/boot", 400),
        ("/boot?mac=52:54", 400),
        (f"/event?mac={MAC}&stage=agent", 400),
        (f"/event?mac={MAC}&stage=root&cpus=2", 204),
        (f"/images/boot-c/vmlinuz?mac={MAC}", 200),
        ("/images/boot-c/initrd.img", 404),
        ("/images/base-b/vmlinuz", 404),
        ("/images/boot-c/..%2f..%2fsecret", 404),
        ("/images/boot-c%2f..%2fx/vmlinuz", 404),
        ("/", 404),
    ],
)
async def test_what_is_asked_for_is_answered_or_refused(client: TestClient, config: Config, path: str, status: int) -> None:  # type: ignore[type-arg]
    for layer in ("boot-c", "base-b"):
        (config.images / layer / "root").mkdir(parents=True)
        (config.images / layer / "root/vmlinuz").write_bytes(b"kernel")
    (config.images / "secret").write_bytes(b"secret")
    assert (await client.get(path)).status == status


async def test_before_the_cluster_is_known_machines_wait(config: Config, heard: list[Message]) -> None:
    async with TestClient(TestServer(Web(config, heard.append, Tokens(config.tokens)).application())) as client:
        text = await (await client.get(f"/boot?mac={MAC}")).text()
    assert "the head does not know the cluster yet" in text


def test_files_are_written_once_and_taken_away(config: Config) -> None:
    assert write_all(config, TABLE) == ["exports", "hosts", "dnsmasq"]
    assert write_all(config, TABLE) == []
    assert [path.name for path in config.hosts.iterdir()] == ["52-54-00-77-00-01"]
    assert (config.nodes / "n1").is_dir()
    assert write_all(config, Table(NetworkSpec())) == ["exports", "hosts"]
    assert list(config.hosts.iterdir()) == []
    assert (config.nodes / "n1").is_dir()  # what a node kept is not thrown away because it is not declared for a moment


def test_nothing_is_written_of_a_table_that_cannot_be_rendered(config: Config) -> None:
    bad = Row("n 1", MAC, "10.77.0.11", ROW.revision)
    with pytest.raises(Exception, match="cannot be the name"):
        write_all(config, Table(NetworkSpec(), (bad,)))
    assert not config.state.exists()


class Records:
    """A ledger at work, and what stands in etcd."""

    def __init__(self, kv: MemoryKV) -> None:
        self.kv = kv

    async def hear(self, *messages: Message, until: str) -> Machine:
        """Heard by a fresh service, until the record shows this stage."""
        ledger = Ledger(self.kv, lambda: datetime(2026, 11, 1, tzinfo=UTC))
        for message in messages:
            ledger.hear(message)
        running = asyncio.create_task(ledger.run())
        try:
            async with asyncio.timeout(10):
                async for _ in self.kv.watch(keys.MACHINES, revision=1):
                    found = await self.read()
                    if found is not None and found.boot.stage == until:
                        return found
        finally:
            running.cancel()
        raise AssertionError("a watch never ends")

    async def read(self) -> Machine | None:
        found = await self.kv.get(keys.machine(MAC))
        return Machine.model_validate_json(found.value) if found else None


async def test_records_are_written_and_go_on_with_the_next_service() -> None:
    records = Records(MemoryKV())
    await records.hear(Message(MAC, stage="dhcp", facts={"vendor": "MX"}), until="dhcp")
    found = await records.hear(Message(MAC, stage="ipxe", node="n1"), until="ipxe")
    assert found.boot.dhcp is not None
    assert (found.node, found.hardware.vendor) == ("n1", "MX")


async def test_a_record_that_cannot_be_read_is_written_anew() -> None:
    records = Records(MemoryKV())
    await records.kv.txn((), (Put(keys.machine(OTHER), b"{"),))
    await records.hear(Message(OTHER, stage="dhcp"), Message(MAC, stage="dhcp"), until="dhcp")
    other = await records.kv.get(keys.machine(OTHER))
    assert other is not None
    assert Machine.model_validate_json(other.value).mac == OTHER
