"""A store in memory, with a clock that stands still until a test moves it."""

from datetime import UTC, datetime, timedelta

import pytest

from store.memory import MemoryKV
from store.store import Store


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kv() -> MemoryKV:
    return MemoryKV()


@pytest.fixture
def store(kv: MemoryKV, clock: Clock) -> Store:
    return Store(kv, clock=clock)
