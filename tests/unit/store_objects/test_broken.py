"""The mark of broken objects: one condition in the raw text, and nothing else."""

import json
from typing import Any

import pytest

from crds import keys
from crds.job import Job
from store.broken import VALID, mark_broken
from store.errors import Conflict, Fenced
from store.kv import Compare, Put, Target
from store.memory import MemoryKV
from store.objects import Broken
from store.store import Store
from tests.resources import job
from tests.unit.store_objects.conftest import Clock

KEY = keys.object_key(Job, "w", "default")
WRONG: dict[str, Any] = {"kind": "Job", "metadata": {"name": "w", "x": [1, {"y": None}]}, "spec": {"command": 7, "é": 1.5}}


async def put_broken(store: Store, raw: bytes) -> Broken:
    await store.kv.txn([], [Put(KEY, raw)])
    (found,) = (await store.list(Job)).broken
    return found


async def stored(store: Store) -> Any:
    found = await store.kv.get(KEY)
    assert found is not None
    return json.loads(found.value)


async def test_one_condition_and_nothing_else(store: Store, clock: Clock) -> None:
    broken = await put_broken(store, json.dumps(WRONG).encode())
    assert await mark_broken(store, broken)
    after = await stored(store)
    (condition,) = after.pop("status")["conditions"]
    assert after == WRONG
    assert (condition["type"], condition["status"], condition["reason"]) == (VALID, "False", "Unreadable")
    assert "spec.command: must be a list" in condition["message"]
    assert condition["lastTransitionTime"] == "2030-01-01T00:00:00.000Z"


async def test_again_writes_nothing(store: Store, kv: MemoryKV, clock: Clock) -> None:
    await mark_broken(store, await put_broken(store, json.dumps(WRONG).encode()))
    before = kv.server.revision
    clock.advance(60)
    (again,) = (await store.list(Job)).broken
    assert await mark_broken(store, again)
    assert kv.server.revision == before


async def test_another_error_keeps_the_time_and_other_conditions(store: Store, clock: Clock) -> None:
    other = {"type": "Running", "status": "True"}
    await mark_broken(
        store, await put_broken(store, json.dumps(WRONG | {"status": {"conditions": [other, 5], "phase": "?"}}).encode())
    )
    clock.advance(60)
    data = await stored(store)
    data["spec"] = {}
    assert await mark_broken(store, await put_broken(store, json.dumps(data).encode()))
    status = (await stored(store))["status"]
    assert status["conditions"][:2] == [other, 5]
    assert status["phase"] == "?"
    assert status["conditions"][2]["lastTransitionTime"] == "2030-01-01T00:00:00.000Z"
    assert "spec.command: is missing" in status["conditions"][2]["message"]


@pytest.mark.parametrize("raw", [b"{", b"[]", b"7", b"\xff", b'{"status": 5}', b'{"status": {"conditions": {}}}', b"[" * 100_000])
async def test_no_place_for_a_condition(store: Store, kv: MemoryKV, raw: bytes) -> None:
    broken = await put_broken(store, raw)
    before = kv.server.revision
    assert not await mark_broken(store, broken)
    assert kv.server.revision == before


async def test_a_full_value_stays(store: Store, kv: MemoryKV) -> None:
    raw = json.dumps({"x": "y" * (2**20 - 20)}).encode()
    assert not await mark_broken(store, await put_broken(store, raw))


async def test_somebody_else_was_quicker(store: Store) -> None:
    broken = await put_broken(store, json.dumps(WRONG).encode())
    await store.delete(Job, "w")
    await store.create(job())
    with pytest.raises(Conflict):
        await mark_broken(store, broken)


async def test_a_deposed_leader_writes_nothing(store: Store) -> None:
    broken = await put_broken(store, json.dumps(WRONG).encode())
    with pytest.raises(Fenced):
        await mark_broken(store.guarded(Compare("/mx/leader", Target.CREATE, 3)), broken)
