"""A move's deadline names what was waited for."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from crds.placement import MoveOrder
from nodeagent.deadline import Deadline
from nodeagent.errors import MoveFailed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def order(seconds: float) -> MoveOrder:
    deadline = NOW + timedelta(seconds=seconds)
    return MoveOrder(migration="m", source="n1", destination="n2", peer="n2:1", ticket="t", deadline=deadline)


async def test_the_step_that_took_too_long_is_named() -> None:
    deadline = Deadline(order(0.02), NOW)
    with pytest.raises(MoveFailed, match="move m: its deadline passed while node/n2 was being reached: refused"):
        async with deadline.kept("it began"):
            deadline.doing("node/n2 was being reached: refused")
            await asyncio.Event().wait()


async def test_a_deadline_that_has_passed_lets_nothing_begin() -> None:
    with pytest.raises(MoveFailed, match="while it began"):
        async with Deadline(order(-1), NOW).kept("it began"):
            await asyncio.Event().wait()


async def test_another_time_out_stays_what_it_is() -> None:
    with pytest.raises(TimeoutError):
        async with Deadline(order(60), NOW).kept("it began"):
            raise TimeoutError


async def test_what_is_left_is_never_nothing() -> None:
    assert Deadline(order(-5), NOW).left == 0.1
    assert 59 < Deadline(order(60), NOW).left <= 60
