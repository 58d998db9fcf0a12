"""Quantities people write: ``cpu: "500m"``, ``memory: 512Mi``, ``minResidency: 30s``.

In Python they are plain numbers (cores, bytes, seconds), so that planning can calculate; in YAML, JSON and etcd they are
canonical strings, so that what was written and what is read back compare equal.
"""

import re
from fractions import Fraction
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

N = TypeVar("N", int, float, Fraction)

_BINARY = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_SECONDS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}
_NUMBER = r"[0-9]{1,30}(?:\.[0-9]{1,30})?"
_MOST = 2**63  # of cores, bytes or seconds: beyond is a slip of the pen, and floats and JSON end somewhere


def parse_cpu(value: Any) -> float:
    """Cores from ``0.5``, ``"0.5"`` or ``"500m"``; ValueError with what would have been right."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(_in_range(value, value, "cores"))
    match = re.fullmatch(rf"({_NUMBER})(m?)", value.strip()) if isinstance(value, str) else None
    if not match:
        raise ValueError(f'{value!r} is not a number of cores; write e.g. "0.5" or "500m"')
    return float(_in_range(Fraction(match[1]) / (1000 if match[2] else 1), value, "cores"))


def parse_memory(value: Any) -> int:
    """Bytes from ``1024``, ``"512Mi"``, ``"1.5G"``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return int(_in_range(value, value, "bytes"))
    match = re.fullmatch(rf"({_NUMBER})([A-Za-z]*)", value.strip()) if isinstance(value, str) else None
    factor = (_BINARY | _DECIMAL).get(match[2]) if match else None
    if not match or factor is None:
        raise ValueError(f'{value!r} is not an amount of memory; write e.g. "512Mi" or "2Gi"')
    return round(_in_range(Fraction(match[1]) * factor, value, "bytes"))


def parse_duration(value: Any) -> float:
    """Seconds from ``30``, ``"30s"``, ``"1m30s"``, ``"500ms"``."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(_in_range(value, value, "seconds"))
    parts = re.findall(rf"({_NUMBER})(ms|s|m|h|d)", value) if isinstance(value, str) else []
    if not parts or "".join(number + unit for number, unit in parts) != str(value).strip():
        raise ValueError(f'{value!r} is not a duration; write e.g. "30s", "5m" or "1h30m"')
    return float(_in_range(sum((Fraction(number) * _SECONDS[unit] for number, unit in parts), Fraction(0)), value, "seconds"))


def _in_range(number: N, value: Any, unit: str) -> N:
    """Compared before it becomes a float, because that would raise OverflowError, which pydantic lets through."""
    if not 0 <= number < _MOST:
        raise ValueError(f"{str(value)[:40]} is not a number of {unit} from 0 up to 2^63")
    return number


def format_cpu(cores: float) -> str:
    """``0.5`` for half a core; at most three digits, as the kernel's quotas have no more."""
    return f"{cores:.3f}".rstrip("0").rstrip(".")


def format_memory(size: int) -> str:
    """The shortest exact form: ``512Mi``, ``1536`` (bytes)."""
    for unit, factor in reversed(_BINARY.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """``90s``, ``500ms``; whole hours and minutes as such."""
    if seconds and seconds % 3600 == 0:
        return f"{int(seconds // 3600)}h"
    if seconds and seconds % 60 == 0:
        return f"{int(seconds // 60)}m"
    if seconds != int(seconds):
        return f"{round(seconds * 1000)}ms"
    return f"{int(seconds)}s"


def human_memory(size: float) -> str:
    """For people's eyes: ``1.4Gi``, ``300Mi``; three digits at most."""
    for unit in ("", "Ki", "Mi", "Gi", "Ti"):
        if abs(size) < 1024 or unit == "Ti":
            return f"{size:.1f}{unit}" if unit and abs(size) < 10 else f"{size:.0f}{unit}"
        size /= 1024
    raise AssertionError("unreachable: the loop returns at its last unit")


Cpu = Annotated[
    float,
    BeforeValidator(parse_cpu),
    PlainSerializer(format_cpu, return_type=str),
    WithJsonSchema({"type": "string", "format": "cpu", "examples": ["0.5", "500m", "2"]}),
]
Memory = Annotated[
    int,
    BeforeValidator(parse_memory),
    PlainSerializer(format_memory, return_type=str),
    WithJsonSchema({"type": "string", "format": "memory", "examples": ["512Mi", "2Gi"]}),
]
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "format": "duration", "examples": ["30s", "5m"]}),
]
