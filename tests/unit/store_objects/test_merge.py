"""The three-way merge, by example and by its laws."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.merge import merge

NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = st.one_of(st.integers(0, 3), st.lists(st.integers(0, 2), max_size=2))
DATA = st.dictionaries(NAMES, st.recursive(LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6))


@pytest.mark.parametrize(
    ("last", "live", "wish", "merged"),
    [
        ({}, {}, {"a": 1}, {"a": 1}),
        ({}, {"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ({"a": 1}, {"a": 1, "b": 2}, {}, {"b": 2}),
        ({"a": 1}, {"a": 9}, {}, {}),
        ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {}, {"a": {"y": 2}}),
        ({"a": {"x": 1}}, {"a": {"x": 1}}, {}, {}),
        ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {"a": {"z": 3}}, {"a": {"y": 2, "z": 3}}),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, {"a": [1]}, {"a": [1]}),
        ({}, {"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"x": 1}}, {"a": 5}, {"a": 6}, {"a": 6}),
        ({"a": 1}, {}, {}, {}),
    ],
)
def test_examples(last: dict[str, Any], live: dict[str, Any], wish: dict[str, Any], merged: dict[str, Any]) -> None:
    assert merge(last, live, wish) == merged


def leaves(data: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if isinstance(data, dict):
        return {k: v for name, value in data.items() for k, v in leaves(value, (*path, name)).items()}
    return {path: data}


def groups(data: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Where mappings stand."""
    if not isinstance(data, dict):
        return []
    return [path] * bool(path) + [p for name, value in data.items() for p in groups(value, (*path, name))]


def related(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


@given(DATA, DATA, DATA)
def test_all_that_is_wanted_is_there(last: dict[str, Any], live: dict[str, Any], wish: dict[str, Any]) -> None:
    assert leaves(wish).items() <= leaves(merge(last, live, wish)).items()


@given(DATA, DATA, DATA)
def test_what_others_set_survives(last: dict[str, Any], live: dict[str, Any], wish: dict[str, Any]) -> None:
    """Unless we set, now or last time, the very field or something above it."""
    whole = {*leaves(last), *leaves(wish)}
    ours = {*whole, *groups(last), *groups(wish)}
    merged = leaves(merge(last, live, wish))
    for path, value in leaves(live).items():
        if path not in ours and not any(path[:end] in whole for end in range(len(path))):
            assert merged[path] == value


@given(DATA, DATA, DATA)
def test_what_only_we_set_goes(last: dict[str, Any], live: dict[str, Any], wish: dict[str, Any]) -> None:
    merged = leaves(merge(last, live, wish))
    for path in leaves(last):
        if not any(related(path, wanted) for wanted in [*leaves(wish), *groups(wish)]):
            assert path not in merged


@given(DATA, DATA, DATA)
def test_twice_is_once(last: dict[str, Any], live: dict[str, Any], wish: dict[str, Any]) -> None:
    once = merge(last, live, wish)
    assert merge(wish, once, wish) == once


@given(DATA, DATA)
def test_the_arguments_stay(live: dict[str, Any], wish: dict[str, Any]) -> None:
    before = repr((live, wish))
    merge(wish, live, {})
    merge({}, live, wish)
    assert repr((live, wish)) == before
