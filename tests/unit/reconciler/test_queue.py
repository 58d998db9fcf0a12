"""The queue's promises: once each, one at a time, again when changed meanwhile, and due times."""

import asyncio

from reconciler.runtime.queue import WorkQueue

from .virtual_clock import VirtualClock


async def drain(queue: WorkQueue[str]) -> list[str]:
    """All that can be taken now, each done at once."""
    found = []
    while not queue.idle:
        key = await queue.take()
        found.append(key)
        queue.done(key)
    return found


async def test_a_waiting_key_is_there_once() -> None:
    queue: WorkQueue[str] = WorkQueue(VirtualClock())
    for key in ("a", "b", "a", "a"):
        queue.add(key)
    assert await drain(queue) == ["a", "b"]


async def test_a_key_in_work_is_not_given_out_but_comes_again() -> None:
    queue: WorkQueue[str] = WorkQueue(VirtualClock())
    queue.add("a")
    assert await queue.take() == "a"
    queue.add("a")
    queue.add("b")
    assert await queue.take() == "b"
    taking = asyncio.create_task(queue.take())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not taking.done()
    queue.done("a")
    assert await taking == "a"


async def test_the_earliest_due_time_counts() -> None:
    clock = VirtualClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a", 10)
    queue.add("a", 3)
    queue.add("a", 7)
    assert queue.idle
    clock.move_to(2.9)
    assert queue.idle
    clock.move_to(3)
    assert await drain(queue) == ["a"]
    clock.move_to(20)
    assert queue.idle


async def test_a_sleeping_taker_wakes_for_an_earlier_key() -> None:
    clock = VirtualClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("late", 100)
    taking = asyncio.create_task(queue.take())
    for _ in range(10):
        await asyncio.sleep(0)
    queue.add("now")
    assert await taking == "now"
    queue.done("now")
    taking = asyncio.create_task(queue.take())
    for _ in range(10):
        await asyncio.sleep(0)
    clock.move_to(100)
    assert await taking == "late"


async def test_a_timer_set_during_work_starts_after_it() -> None:
    clock = VirtualClock()
    queue: WorkQueue[str] = WorkQueue(clock)
    queue.add("a")
    await queue.take()
    queue.add("a", 5)
    queue.done("a")
    assert queue.idle and queue.pending() == {"a": 5.0}
