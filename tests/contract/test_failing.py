"""Calls that find no answer, and answers that never come."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from store.errors import Unavailable
from store.kv import Put, absent
from tests.contract.conftest import TIMEOUT, Backend, eventually


async def test_a_call_ends_when_nobody_is_there(backend: Backend, prefix: str) -> None:
    await backend.go_down()
    for call in (backend.kv.get(prefix), backend.kv.list(prefix), backend.kv.txn([], []), backend.kv.grant(5)):
        with pytest.raises(Unavailable):
            await call


@pytest.mark.parametrize("call", ["get", "list", "txn", "grant", "keep_alive", "revoke"])
async def test_every_call_ends_in_time_when_no_answer_comes(backend: Backend, prefix: str, call: str) -> None:
    await backend.kv.get(prefix)
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: backend.kv.get(prefix),
        "list": lambda: backend.kv.list(prefix),
        "txn": lambda: backend.kv.txn([], [Put(prefix + "a", b"1")]),
        "grant": lambda: backend.kv.grant(5),
        "keep_alive": lambda: backend.kv.keep_alive(5),
        "revoke": lambda: backend.kv.revoke(5),
    }
    await backend.stall()
    began = time.monotonic()
    with pytest.raises(Unavailable):
        await calls[call]()
    assert time.monotonic() - began < 2 * TIMEOUT
    await backend.resume()


async def test_calls_work_again_after_an_outage(backend: Backend, prefix: str) -> None:
    await backend.go_down()
    with pytest.raises(Unavailable):
        await backend.kv.get(prefix)
    await backend.come_up()

    async def works() -> bool:
        try:
            return await backend.kv.get(prefix) is None
        except Unavailable:
            return False

    await eventually(works)


async def test_a_write_with_unknown_outcome_may_have_happened_and_is_repeated_as_compare_and_set(
    backend: Backend, prefix: str
) -> None:
    await backend.lose_answer()
    with pytest.raises(Unavailable):
        await backend.kv.txn([absent(prefix + "a")], [Put(prefix + "a", b"1")])
    kv = await backend.other.get(prefix + "a")
    assert kv is not None

    async def repeated() -> bool:
        try:
            result = await backend.kv.txn([absent(prefix + "a")], [Put(prefix + "a", b"1")])
        except Unavailable:
            return False
        assert not result.succeeded
        return True

    await eventually(repeated)
    assert await backend.other.get(prefix + "a") == kv


async def test_cancelling_a_call_cancels_its_caller(backend: Backend, prefix: str) -> None:
    await backend.stall()
    call = asyncio.create_task(backend.kv.get(prefix))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await backend.resume()
