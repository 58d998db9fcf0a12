"""Who may do what in etcd: what a stolen certificate of a node is good for, and that a removed node's is good for nothing."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path

import pytest

from clip.authority import Authority, serial_of
from crds import keys
from crds.job import Job
from crds.organisations import ETCD, RECONCILER, SUPERUSER, person
from nodeagent.credentials import prepare
from store.errors import Invalid, StoreError
from store.etcd import EtcdKV
from store.etcd_channel import Tls
from store.kv import Compare, Delete, Get, Put, Target, absent
from store.rights import EtcdRights
from tests.contract.conftest import PATIENCE, TIMEOUT
from tests.etcd_server import EtcdServer

SAFE = (3, 5, 33)
"""The first etcd in which a watch shows only what one may read."""


class Guarded:
    """An etcd that believes certificates only, and those who have one."""

    def __init__(self, server: EtcdServer, authority: Authority, directory: Path) -> None:
        self.server, self.authority, self.directory = server, authority, directory

    @asynccontextmanager
    async def as_admin(self) -> AsyncIterator[EtcdKV]:
        certificate, key = self.directory / "authority/alice.crt", self.directory / "authority/alice.key"
        if not certificate.exists():
            self.authority.admin("alice")
        async with self._connected(Tls(self.directory / "authority/ca.crt", certificate, key)) as kv:
            yield kv

    @asynccontextmanager
    async def as_node(self, name: str) -> AsyncIterator[EtcdKV]:
        there = self.directory / name
        await prepare(there, name)
        (there / "ca.crt").write_bytes(self.authority.pem)
        (there / "node.crt").write_bytes(self.authority.sign((there / "node.csr").read_bytes(), name))
        async with self._connected(Tls.of(there, "node")) as kv:
            yield kv

    def again(self, name: str) -> AbstractAsyncContextManager[EtcdKV]:
        """Another connection, with the certificate that is there."""
        return self._connected(Tls.of(self.directory / name, "node"))

    @asynccontextmanager
    async def as_service(self, name: str) -> AsyncIterator[EtcdKV]:
        self.authority.service(self.directory / "services", name)
        async with self._connected(Tls.of(self.directory / "services", name.removeprefix("_"))) as kv:
            yield kv

    @asynccontextmanager
    async def _connected(self, tls: Tls) -> AsyncIterator[EtcdKV]:
        kv = EtcdKV.connect([self.server.endpoint], timeout=TIMEOUT, tls=tls)
        try:
            yield kv
        finally:
            await kv.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("rights")
    authority = Authority.open(directory / "authority", "test")
    authority.service(directory / "tls", ETCD, ["127.0.0.1"])
    tls = directory / "tls"
    authority.publish(tls / "revoked.crl", [])
    files = {"certificate": tls / "etcd.crt", "key": tls / "etcd.key", "revoked": tls / "revoked.crl"}
    with EtcdServer.with_tls(ca=tls / "ca.crt", **files) as server:
        found = Guarded(server, authority, directory)
        asyncio.run(secure(found))
        yield found


async def secure(guarded: Guarded) -> None:
    async with guarded.as_admin() as kv:
        rights = EtcdRights(kv.channel)
        for _ in range(2):  # cut short and done again
            await rights.secure([person("alice")])
            for node in ("n1", "n2"):
                await rights.admit(node)
        puts = [
            keys.alive("n2"),
            keys.placement("n1", "default", "j"),
            keys.placement("n2", "default", "j"),
            keys.host("default", "j"),
        ]
        await kv.txn([], [Put(key, b"1") for key in [*puts, keys.LEADER, keys.object_key(Job, "j", "default")]])


async def test_a_node_does_its_work(guarded: Guarded) -> None:
    async with guarded.as_node("n1") as kv:
        lease = await kv.grant(10)
        made = await kv.txn([], [Put(keys.alive("n1"), b"1", lease)])
        guard = Compare(keys.alive("n1"), Target.MOD, made.revision)
        report, claim = keys.report("n1", "default", "j"), keys.claim("n1", "default", "j")
        assert (
            await kv.txn([guard, absent(report)], [Put(report, b"1"), Put(claim, b"1")], [Get(guard.key), Get(report)])
        ).succeeded
        assert await kv.keep_alive(lease) > 0
        for prefix, count in ((keys.placement_prefix("n1"), 1), (keys.HOSTS, 1), (keys.node_prefix("n1"), 3)):
            page = await kv.list(prefix)
            assert len(page.items) == count
            async with aclosing(kv.watch(prefix, revision=1)) as batches, asyncio.timeout(PATIENCE):
                while not (await anext(batches)).changes:
                    pass
        await kv.txn([guard], [Delete(report), Delete(claim)])
        await kv.revoke(lease)


@pytest.mark.parametrize(
    "key",
    [
        keys.alive("n2"),
        keys.report("n2", "default", "j"),
        keys.placement("n2", "default", "j"),
        keys.object_key(Job, "j", "default"),
        keys.LEADER,
        keys.join("52:54:00:77:00:01"),
        "/mx/nodes/n10/alive",
    ],
)
async def test_a_stolen_certificate_reads_and_writes_nothing_of_others(guarded: Guarded, key: str) -> None:
    async with guarded.as_node("n1") as kv:
        for attempt in (
            kv.get(key),
            kv.list(key),
            kv.txn([], [Put(key, b"stolen")]),
            kv.txn([], [Delete(key)]),
            kv.txn([absent(keys.alive("n1"))], [], [Get(key)]),
            kv.txn([absent(key)], [], []),
        ):
            with pytest.raises(Invalid, match="permission denied"):
                await attempt


@pytest.mark.parametrize("key", [keys.placement("n1", "default", "j"), keys.host("default", "j"), keys.revoked("AB")])
async def test_what_a_node_reads_it_may_not_write(guarded: Guarded, key: str) -> None:
    async with guarded.as_node("n1") as kv:
        await kv.get(key)
        with pytest.raises(Invalid, match="permission denied"):
            await kv.txn([], [Put(key, b"stolen")])


async def test_a_stolen_certificate_changes_no_rights(guarded: Guarded) -> None:
    async with guarded.as_node("n1") as kv:
        rights = EtcdRights(kv.channel)
        for attempt in (rights.admit("n3"), rights.expel("n2"), rights.secure(["n1"])):
            with pytest.raises(Invalid, match="permission denied"):
                await attempt


async def seen_by_a_watch(kv: EtcdKV, start: str) -> list[str]:
    """What a watch from that key to the end of all keys shows of the past, or that it is denied."""
    from store.etcd_watch import WATCH
    from store.rpc import etcd_pb2 as pb

    call = kv.channel.stream(WATCH, timeout=3.0)
    create = pb.WatchCreateRequest(key=start.encode(), range_end=b"\0", start_revision=1)
    await call.write(pb.WatchRequest(create_request=create))
    answer = await call.read()
    assert isinstance(answer, pb.WatchResponse)
    if answer.canceled:
        call.cancel()
        return []
    answer = await call.read()
    call.cancel()
    assert isinstance(answer, pb.WatchResponse)
    return sorted({event.kv.key.decode() for event in answer.events})


async def test_the_hole_of_watches_shows_only_what_sorts_behind(guarded: Guarded) -> None:
    """GHSA-xg4h-6gfc-h4m8. Should this fail because nothing is seen, etcd has been mended: good."""
    async with guarded.as_admin() as admin:
        version = tuple(int(part) for part in (await admin.status()).version.split("-")[0].split("."))
    async with guarded.as_node("n1") as kv:
        assert await seen_by_a_watch(kv, keys.LEADER) == []  # it may not read where the watch begins
        assert await seen_by_a_watch(kv, keys.OBJECTS) == []
        seen = await seen_by_a_watch(kv, keys.placement_prefix("n1"))
        most = await seen_by_a_watch(kv, keys.node_prefix("n1"))  # the first key that it may read
    behind = [keys.placement("n1", "default", "j"), keys.placement("n2", "default", "j"), keys.host("default", "j")]
    assert seen == (behind if version < SAFE else [])
    assert all(key.startswith((keys.NODES, keys.PLACEMENTS, keys.PUBLIC)) for key in most)


async def test_what_agents_read_is_the_last(guarded: Guarded) -> None:
    tops = {value for name, value in vars(keys).items() if name.isupper() and str(value).startswith(keys.ROOT) and name != "ROOT"}
    mine = {keys.NODES, keys.PLACEMENTS, keys.PUBLIC, keys.HOSTS, keys.REVOKED, keys.FILES}
    assert max(tops - mine) < keys.NODES < keys.PLACEMENTS < keys.PUBLIC


async def test_a_removed_node_is_refused_at_once(guarded: Guarded) -> None:
    async with guarded.as_admin() as admin, guarded.as_node("n5") as kv:
        rights = EtcdRights(admin.channel)
        with pytest.raises(Invalid):
            await kv.get(keys.alive("n5"))  # its certificate is good, but nobody has admitted it
        await rights.admit("n5")
        await kv.txn([], [Put(keys.alive("n5"), b"1")])
        for _ in range(2):
            await rights.expel("n5")
        with pytest.raises(Invalid, match="no right"):
            await kv.txn([], [Put(keys.alive("n5"), b"2")])
        with pytest.raises(Invalid, match="no right"):
            await kv.get(keys.alive("n5"))
        await rights.admit("n5")
        assert await kv.get(keys.alive("n5")) is not None
        await rights.expel("n5")


async def test_a_stolen_certificate_is_refused_although_its_name_was_given_again(guarded: Guarded) -> None:
    async with guarded.as_admin() as admin, guarded.as_node("n6") as kv:
        await EtcdRights(admin.channel).admit("n6")
        await kv.txn([], [Put(keys.alive("n6"), b"1")])
        serial, _ = serial_of((guarded.directory / "n6/node.crt").read_bytes())
        listed = guarded.directory / "tls/revoked.crl"
        guarded.authority.publish(listed, [serial])
        async with guarded.again("n6") as thief:
            with pytest.raises(StoreError):
                await thief.get(keys.alive("n6"))
        guarded.authority.publish(listed, ["AB12"])
        async with guarded.again("n6") as holder:
            assert await holder.get(keys.alive("n6")) is not None
        await EtcdRights(admin.channel).expel("n6")


async def test_nobody_becomes_the_superuser_by_his_name(guarded: Guarded) -> None:
    async with guarded.as_admin() as admin:
        for name in (SUPERUSER, RECONCILER, person("alice")):
            with pytest.raises(Invalid, match="choose another"):
                await EtcdRights(admin.channel).admit(name)


async def test_services_of_the_head_may_do_everything(guarded: Guarded) -> None:
    async with guarded.as_service(RECONCILER) as kv:
        await kv.txn([], [Put(keys.LEADER, b"1")])
        assert (await kv.list(keys.ROOT)).items


async def test_changed_rights_fail_no_call_of_others(guarded: Guarded) -> None:
    """etcd refuses what was asked before a change of rights and comes to its turn after it; then we ask again."""
    async with guarded.as_admin() as admin, guarded.as_node("n2") as kv:
        rights, stop = EtcdRights(admin.channel), asyncio.Event()

        async def work() -> int:
            done = 0
            while not stop.is_set():
                await kv.txn([], [Put(keys.load("n2"), str(done).encode())])
                await kv.get(keys.load("n2"))
                done += 1
            return done

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work()) for _ in range(4)]
            for number in range(10):
                await rights.admit(f"x{number}")
                await rights.expel(f"x{number}")
            stop.set()
        assert all(worker.result() > 0 for worker in workers)


async def test_without_a_certificate_nobody_gets_in(guarded: Guarded) -> None:
    kv = EtcdKV.connect([guarded.server.endpoint], timeout=TIMEOUT, tls=Tls(guarded.directory / "authority/ca.crt"))
    with pytest.raises(StoreError):
        await kv.get(keys.LEADER)
    await kv.close()
