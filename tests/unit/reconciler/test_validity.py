"""Values put into etcd behind our back: told, and nothing stops."""

import json

import pytest

from crds import keys
from crds.job import Job, JobPhase
from crds.meta import find_condition
from crds.node import Node
from store.errors import Invalid

from .house import House


def stored(house: House, key: str) -> dict[str, object]:
    kv = house.kv.server.get(key)
    assert kv is not None
    found = json.loads(kv.value)
    assert isinstance(found, dict)
    return found


async def works_still(house: House) -> None:
    await house.run("other")
    await house.advance(10)
    assert (await house.job("other")).phase == JobPhase.RUNNING


async def test_a_broken_object_gets_a_condition_and_an_event() -> None:
    async with House("n1") as house:
        key = keys.object_key(Job, "bad", "default")
        await house.put(key, b'{"apiVersion":"mx/v1","kind":"Job","metadata":{"name":"bad"},"spec":{"command":"oops"}}')
        await house.settle()
        status = stored(house, key)["status"]
        assert isinstance(status, dict)
        assert [(c["type"], c["status"]) for c in status["conditions"]] == [("Valid", "False")]
        assert "spec.command" in status["conditions"][0]["message"]
        assert "Invalid bad" in await house.events()
        await works_still(house)


@pytest.mark.parametrize(
    "key",
    [
        "/mx/kinds/jobs/default/bad",
        "/mx/kinds/wishes/default/bad",
        "/mx/kinds/nodes/_/n1",
        "/mx/kinds/clusters/_/c",
        "/mx/kinds/balancepolicies/_/p",
        "/mx/kinds/strange",
        "/mx/nodes/n2/alive",
        "/mx/nodes/n2/load",
        "/mx/nodes/n2/jobs/default/bad",
        "/mx/nodes/n2/claims/default/bad",
        "/mx/nodes/n2/what/is/this",
        "/mx/placements/n2/default/bad",
        "/mx/placements/n2",
        "/mx/x",
    ],
)
@pytest.mark.parametrize("value", [b"", b"\xff\xfe", b"[]", b'{"kind":"Job"}', b'{"status":7}'])
async def test_no_value_under_any_key_stops_anything(key: str, value: bytes) -> None:
    async with House("n1", "n3") as house:
        await house.put(key, value)
        await house.advance(40)
        await works_still(house)


async def test_an_object_that_can_be_read_again_says_so() -> None:
    async with House("n1") as house:
        key = keys.object_key(Node, "n1")
        good = stored(house, key)
        await house.put(key, json.dumps(good | {"typo": 1}).encode())
        await house.settle()
        with pytest.raises(Invalid):
            await house.node("n1")
        marked = stored(house, key)
        del marked["typo"]
        await house.put(key, json.dumps(marked).encode())
        await house.settle()
        condition = find_condition((await house.node("n1")).status.conditions, "Valid")
        assert condition is not None and condition.status == "True"


async def test_a_broken_object_is_told_once_not_all_the_time() -> None:
    async with House("n1") as house:
        key = keys.object_key(Job, "bad", "default")
        await house.put(key, b'{"kind":"Job"}')
        await house.settle()
        before = house.kv.server.get(key)
        await house.advance(300)
        assert house.kv.server.get(key) == before
