"""What is said to be alike is alike, and what went ahead is found again when pages were written, came and went."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodeagent.ahead import PAGE
from nodeagent.likeness import Likeness, Part


def memory(*pages: int) -> memoryview:
    """Pages named by numbers; the same number is the same page."""
    return memoryview(bytearray(b"".join(number.to_bytes(4, "big") * (PAGE // 4) for number in pages)))


def known_pages(parts: list[Part]) -> int:
    return sum((part.end - part.begin) // PAGE for part in parts if part.known is not None)


def check(ahead: memoryview, data: memoryview, parts: list[Part]) -> None:
    at = 0
    for part in parts:
        assert part.begin == at < part.end
        if part.known is not None:
            assert ahead[part.known : part.known + part.end - part.begin] == data[part.begin : part.end]
        at = part.end
    assert at == len(data)


@given(st.lists(st.integers(0, 5), max_size=120), st.lists(st.integers(0, 5), max_size=120), st.integers(0, PAGE - 1))
def test_parts_cover_the_data_and_are_what_they_say(before: list[int], after: list[int], tail: int) -> None:
    ahead = memory(*before)
    data = memoryview(bytearray(memory(*after)) + bytearray(tail))
    likeness = Likeness(ahead)
    check(ahead, data, list(likeness.parts(data)))
    check(ahead, data, list(likeness.parts(data)))  # and from wherever it is expected to go on


def test_the_same_memory_is_known_as_a_whole() -> None:
    ahead = memory(*range(300))
    assert list(Likeness(ahead).parts(memory(*range(300)))) == [Part(0, 300 * PAGE, 0)]


def test_a_written_page_is_the_only_one_that_is_sent() -> None:
    ahead, data = memory(*range(300)), memory(*range(100), 999, *range(101, 300))
    assert [part for part in Likeness(ahead).parts(data) if part.known is None] == [Part(100 * PAGE, 101 * PAGE, None)]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param([*range(100), *range(900, 940), *range(100, 300)], id="pages came"),
        pytest.param([*range(100), *range(140, 300)], id="pages went"),
    ],
)
def test_it_is_found_again(after: list[int]) -> None:
    ahead, data = memory(*range(300)), memory(*after)
    parts = list(Likeness(ahead).parts(data))
    check(ahead, data, parts)
    assert known_pages(parts) > len([page for page in after if page < 300]) - 20


def test_comparing_is_given_up_when_nothing_is_alike() -> None:
    source = random.Random(1)
    likeness = Likeness(memory(*range(256)))
    for _ in range(200):
        data = memory(*(source.randrange(1000, 1 << 30) for _ in range(256)))
        assert list(likeness.parts(data)) == [Part(0, len(data), None)]
    assert list(likeness.parts(memory(*range(256)))) == [Part(0, 256 * PAGE, None)]
