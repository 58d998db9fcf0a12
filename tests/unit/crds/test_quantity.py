"""Quantities: what is written is what is read back, and what is none is refused."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.quantity import format_cpu, format_duration, format_memory, human_memory, parse_cpu, parse_duration, parse_memory


@given(st.integers(0, 10**9))
def test_cores_survive_to_the_thousandth(thousandths: int) -> None:
    assert parse_cpu(format_cpu(thousandths / 1000)) == thousandths / 1000
    assert parse_cpu(f"{thousandths}m") == thousandths / 1000


@given(st.integers(0, 2**63 - 1))
def test_bytes_survive_exactly(size: int) -> None:
    assert parse_memory(format_memory(size)) == size


@given(st.integers(0, 10**10))
def test_times_survive_to_the_millisecond(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000, abs=1e-9)


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59))
def test_times_add_up(hours: int, minutes: int, seconds: int) -> None:
    assert parse_duration(f"{hours}h{minutes}m{seconds}s") == hours * 3600 + minutes * 60 + seconds


@given(st.integers(0, 2**50))
def test_sizes_for_people_are_short(size: int) -> None:
    assert len(human_memory(size)) <= 8


@pytest.mark.parametrize(
    ("parse", "value", "number"),
    [
        (parse_cpu, "500m", 0.5), (parse_cpu, 2, 2.0), (parse_cpu, " 1.5 ", 1.5), (parse_cpu, 0.35, 0.35),
        (parse_memory, "512Mi", 2**29), (parse_memory, "1.5G", 1_500_000_000), (parse_memory, 7, 7), (parse_memory, "2k", 2000),
        (parse_duration, "1m30s", 90.0), (parse_duration, "500ms", 0.5), (parse_duration, 3, 3.0), (parse_duration, "2d", 172800.0),
    ],
)  # fmt: skip
def test_what_people_write(parse: Callable[[Any], float], value: Any, number: float) -> None:
    assert parse(value) == number


@pytest.mark.parametrize("parse", [parse_cpu, parse_memory, parse_duration])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        "-1",
        "1 5",
        "1e3",
        "0x10",
        "١",
        "5 parsecs",
        "Mi",
        None,
        True,
        [],
        {},
        -1,
        10**400,
        "9" * 400 + "d",
        float("inf"),
        float("nan"),
    ],
)
def test_what_is_none(parse: Callable[[Any], float], value: Any) -> None:
    with pytest.raises(ValueError, match=r"write e\.g\.|is not a number of"):
        parse(value)


@pytest.mark.parametrize(
    ("parse", "value"),
    [(parse_cpu, "1Mi"), (parse_cpu, "5s"), (parse_memory, "1m"), (parse_duration, "30"), (parse_duration, "1s30")],
)  # fmt: skip
def test_units_of_something_else(parse: Callable[[Any], float], value: str) -> None:
    with pytest.raises(ValueError, match=r"write e\.g\."):
        parse(value)
