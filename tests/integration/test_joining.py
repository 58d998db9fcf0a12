"""Joining over real TLS: what machines and thieves get from the head, and how it is known."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from clip.authority import Authority
from clip.join.office import Cluster, Office
from clip.join.web import serve, server_context
from clip.registry import Registry
from clip.service.config import Config
from clip.service.web import Web
from clip.table import Revision, Row, Table
from clip.tokens import Tokens
from crds import keys
from crds.cluster import NetworkSpec
from crds.join import JoinRecord, JoinState
from crds.meta import Metadata
from crds.node import Node, NodeSpec
from crds.organisations import CLIP
from nodeagent import admission
from nodeagent.credentials import Credentials, Files, prepare
from nodeagent.errors import AgentError
from nodeagent.joining import Head, Invitation, NotAdmitted, ask, facts_of_machine, fetch_authority, join, put
from nodeagent.renewal import due, keep_certificate
from store.kv import Delete, Put
from store.memory import MemoryKV
from store.store import Store
from tests.etcd_server import free_port
from tests.unit.clip.test_registry import FakeRights

MAC, OTHER = "52:54:00:77:00:01", "52:54:00:77:00:02"


class Site:
    """A head that answers on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kv, self.rights = MemoryKV().client(), FakeRights()
        self.authority = Authority.open(directory / "authority", "test")
        self.tokens = Tokens(directory / "tokens")
        self.office = Office(self.kv, Registry(self.kv, self.rights, self.authority), self.tokens, Cluster("10.0.0.1:2379"))
        self.head = Head(f"127.0.0.1:{free_port()}", self.authority.fingerprint)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Site"]:
        self.authority.service(self.directory / "tls", CLIP, ["127.0.0.1"])
        runner = await serve(self.office, server_context(self.directory / "tls"), "127.0.0.1", self.head.port)
        try:
            yield self
        finally:
            await runner.cleanup()

    async def declare(self, name: str, mac: str) -> None:
        await Store(self.kv).create(Node(metadata=Metadata(name=name), spec=NodeSpec(mac=mac)))

    async def request(self, node: str, directory: str = "") -> str:
        there = self.directory / (directory or node)
        await prepare(there, node)
        return (there / "node.csr").read_text()

    async def join(self, token: str, mac: str, csr: str, *, head: Head | None = None, deadline: float = 0.0) -> dict[str, Any]:
        invited = Invitation(head or self.head, token, mac)
        return await asyncio.to_thread(join, invited, csr, facts_of_machine(), deadline=deadline)

    async def post(self, path: str, body: dict[str, Any], own: tuple[Path, Path] | None = None) -> tuple[int, dict[str, Any]]:
        return await asyncio.to_thread(ask, self.head, self.authority.pem, path, body, own)

    async def record(self, mac: str) -> JoinRecord:
        kv = await self.kv.get(keys.join(mac))
        assert kv is not None
        return JoinRecord.model_validate_json(kv.value)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(tmp_path).serving() as site:
        yield site


async def test_a_machine_that_we_boot_joins_and_renews(site: Site) -> None:
    await site.declare("n1", MAC)
    csr = await site.request("n1")
    token = site.tokens.for_boot(MAC, "n1")
    for _ in range(2):  # the first answer may be lost on the way
        answer = await site.join(token, MAC, csr)
    there = site.directory / "n1"
    put(there, answer)
    Credentials(Files.of_node(there)).server()
    assert (answer["node"], answer["endpoints"]) == ("n1", "10.0.0.1:2379")
    assert site.rights.admitted == {"n1"}
    own = (there / "node.crt", there / "node.key")
    status, renewed = await site.post("/renew", {"csr": csr}, own)
    assert status == 200 and renewed["certificate"] not in (answer["certificate"], "")
    assert len((await site.record(MAC)).certificates) == 3
    status, said = await site.post("/renew", {"csr": csr})
    assert (status, said["reason"]) == (401, "show a certificate of this cluster")


async def test_a_node_renews_in_time(site: Site) -> None:
    """With its own certificate, of which two thirds have passed, and without a token."""
    await site.declare("n1", MAC)
    csr = await site.request("n1")
    there = site.directory / "n1"
    put(there, await site.join(site.tokens.for_boot(MAC, "n1"), MAC, csr))
    lifetime = await due(there) - time.time()
    assert 19 * 86400 < lifetime < 21 * 86400
    old = site.authority.sign(csr.encode(), "n1", days=20 / 86400)
    (there / "node.crt").write_bytes(old)
    keeping = asyncio.create_task(keep_certificate(there, site.head.address))
    async with asyncio.timeout(30):
        while (there / "node.crt").read_bytes() == old:  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.1)
    keeping.cancel()
    await asyncio.wait({keeping})
    assert await due(there) - time.time() > 19 * 86400


async def test_a_removed_node_renews_nothing(site: Site) -> None:
    await site.declare("n1", MAC)
    csr = await site.request("n1")
    there = site.directory / "n1"
    put(there, await site.join(site.tokens.for_boot(MAC, "n1"), MAC, csr))
    await site.office.registry.dismiss("n1")
    status, said = await site.post("/renew", {"csr": csr}, (there / "node.crt", there / "node.key"))
    assert status == 403 and "has to join again" in said["reason"]
    await site.kv.txn([], [Delete(keys.object_key(Node, "n1"))])
    await site.declare("n1", MAC)  # the name is given again: who has the old certificate must not send that node away
    status, said = await site.post("/leave", {}, (there / "node.crt", there / "node.key"))
    assert (status, said) == (200, {"node": "n1"})
    assert (await Store(site.kv).get(Node, "n1")).metadata.deletion_timestamp is None
    with pytest.raises(NotAdmitted, match="shows no token"):
        await site.join("", MAC, csr)


async def test_a_thief_who_knows_a_mac_gets_nothing(site: Site) -> None:
    await site.declare("n1", MAC)
    token = site.tokens.for_boot(MAC, "n1")
    await site.join(token, MAC, await site.request("n1"))
    theirs = await site.request("thief")
    for wrong, why in (("", "shows no token"), ("0" * 32, "not known"), (token, "another key")):
        with pytest.raises(NotAdmitted, match=why):
            await site.join(wrong, MAC, theirs)
    with pytest.raises(NotAdmitted, match="for another machine"):
        await site.join(site.tokens.for_boot(OTHER, "n2"), MAC, theirs)


async def test_nobody_gets_the_name_of_another_signed(site: Site) -> None:
    await site.declare("n1", MAC)
    with pytest.raises(NotAdmitted, match="its request is for n2: nothing was signed"):
        await site.join(site.tokens.for_boot(MAC, "n1"), MAC, await site.request("n2"))


async def test_a_machine_waits_until_it_is_approved(site: Site) -> None:
    csr = await site.request("", "nameless")
    token = site.tokens.for_person()
    with pytest.raises(TimeoutError, match="mxctl approve node 52:54:00:77:00:02"):
        await site.join(token, OTHER, csr)
    waiting = await site.record(OTHER)
    assert (waiting.state, waiting.facts.address) == (JoinState.WAITING, "127.0.0.1")
    waiting.approved = "n7"
    await site.kv.txn([], [Put(keys.join(OTHER), waiting.to_json())])
    answer = await site.join("", OTHER, csr)  # by now the token may have ended
    assert answer["node"] == "n7"
    assert (await Store(site.kv).get(Node, "n7")).spec.mac == OTHER


async def test_a_living_node_is_not_replaced(site: Site) -> None:
    await site.declare("n1", MAC)
    await site.kv.txn([], [Put(keys.alive("n1"), b"{}")])
    with pytest.raises(TimeoutError, match="has a heartbeat"):
        await site.join(site.tokens.for_boot(MAC, "n1"), MAC, await site.request("n1"))
    assert site.rights.admitted == set()


async def test_a_false_head_is_told_nothing(site: Site) -> None:
    wrong = Head(site.head.address, "ab" * 32)
    with pytest.raises(NotAdmitted, match="is not of the cluster we were invited to"):
        await site.join(site.tokens.for_person(), MAC, await site.request("n1"), head=wrong)
    assert await asyncio.to_thread(fetch_authority, site.head) == site.authority.pem


async def test_tokens_are_made_by_people_only(site: Site) -> None:
    person = site.authority.admin("alice")
    status, said = await site.post("/tokens", {"node": "n9"}, person)
    assert status == 200 and said["ca"] == site.head.fingerprint
    assert (await site.join(said["token"], OTHER, await site.request("n9")))["node"] == "n9"
    node = (site.directory / "n9/node.crt", site.directory / "n9/node.key")
    put(site.directory / "n9", await site.join(said["token"], OTHER, await site.request("n9")))
    assert await site.post("/tokens", {"node": "n8"}, node) == (403, {"reason": "n9 is not one of mx:admins"})
    assert (await site.post("/tokens", {"node": "n8"}))[0] == 401
    assert (await site.post("/tokens", {"seconds": -1}, person))[0] == 400


@pytest.mark.parametrize(
    "body",
    [{}, {"mac": "../x", "csr": ""}, {"mac": MAC, "csr": "x" * 20_000}, {"mac": MAC, "csr": "", "surprise": 1}, {"mac": MAC}],
)
async def test_nonsense_is_answered_in_one_line(site: Site, body: dict[str, Any]) -> None:
    status, said = await site.post("/join", body)
    assert status == 400 and said["reason"] and "\n" not in said["reason"]


async def test_a_request_that_is_none_is_refused(site: Site) -> None:
    status, said = await site.post("/join", {"mac": MAC, "csr": "nonsense", "token": "x"})
    assert status == 403 and "cannot be read" in said["reason"]


class BootService:
    """mx-clip's web for a machine on loopback; its answers are what the machine's kernel line says."""

    def __init__(self, site: Site) -> None:
        self.told: list[str | None] = []
        config = Config("127.0.0.1", "lo", "", site.directory, site.directory, site.directory, tokens=site.directory / "tokens")
        config = replace(config, join=site.head.address, fingerprint=site.head.fingerprint)
        self.web = Web(config, lambda message: self.told.append(message.problem), site.tokens)
        self.web.use(Table(NetworkSpec(), (Row("n1", MAC, "127.0.0.1", Revision("d", ("a",), "boot-c")),)), {})
        self.server = TestServer(self.web.application())

    def line(self, site: Site, token: str) -> str:
        here = f"mx.mac={MAC} mx.server=127.0.0.1 mx.http={self.server.port}"
        return f"ip=10.0.0.1 {here} mx.join={site.head.address} mx.ca={site.head.fingerprint} mx.token={token} quiet"


async def test_a_booted_machine_gets_over_a_token_that_does_not_do(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was used up, say: the boot service gives another one, and people are told what it was until it is over."""
    monkeypatch.setattr(admission, "REFUSED_PAUSE", 0.01)
    await site.declare("n1", MAC)
    service = BootService(site)
    async with service.server:
        used = site.tokens.for_boot(MAC, "n1")
        site.tokens.use(used, MAC, "thief")
        await site.request("n1")
        booted = admission.read_line(service.line(site, used))
        assert booted is not None
        async with asyncio.timeout(60):
            assert await admission.until_admitted(site.directory / "n1", booted) == site.head.address
    Credentials(Files.of_node(site.directory / "n1")).server()
    assert "another key" in (service.told[0] or "") and service.told[-1] == ""


async def test_a_machine_without_a_token_has_no_certificate(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It claims a known MAC, and asks from another address than that machine's."""
    monkeypatch.setattr(admission, "REFUSED_PAUSE", 0.01)
    await site.declare("n1", MAC)
    service = BootService(site)
    service.web.use(Table(NetworkSpec(), (Row("n1", MAC, "127.0.0.9", Revision("d", ("a",), "boot-c")),)), {})
    async with service.server:
        await site.request("n1")
        booted = admission.read_line(service.line(site, ""))
        assert booted is not None
        trying = asyncio.create_task(admission.until_admitted(site.directory / "n1", booted))
        async with asyncio.timeout(60):
            while not service.told:  # noqa: ASYNC110 - a list
                await asyncio.sleep(0.01)
        trying.cancel()
        await asyncio.wait({trying})
    assert "gave no token" in (service.told[0] or "")
    assert not (site.directory / "n1/node.crt").exists() and site.rights.admitted == set()


def test_a_kernel_line_of_nobody_invites_nobody() -> None:
    assert admission.read_line("root=/dev/sda1 quiet") is None
    with pytest.raises(AgentError, match="boot the machine again"):
        admission.read_line("mx.server=10.0.0.1")
