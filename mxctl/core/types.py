"""Types of options: quantities, names and KEY=VALUE pairs, checked before anything is asked of the cluster."""

from collections.abc import Callable, Sequence
from typing import Any

import click
from pydantic import TypeAdapter, ValidationError

from crds.meta import Name
from crds.quantity import parse_cpu, parse_duration, parse_memory
from crds.wording import explain

_NAME = TypeAdapter(Name)


class Checked(click.ParamType[Any]):
    """``check`` turns the text into the value, or raises ValueError with what would have been right."""

    def __init__(self, name: str, check: Callable[[str], Any]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _seconds(text: str) -> float:
    return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text)


def _name(text: str) -> str:
    try:
        return _NAME.validate_python(text)
    except ValidationError as error:
        raise ValueError(explain(error.errors()[0])) from error


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ValueError(f'"{text}" is not KEY=VALUE')
    return key, value


DURATION = Checked("duration", _seconds)
"""Seconds, from ``20s``, ``1m30s`` or ``20``."""
CPU = Checked("cores", parse_cpu)
MEMORY = Checked("memory", parse_memory)
NAME = Checked("name", _name)
PAIR = Checked("key=value", _pair)


def as_dict(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The last one counts when a key is given twice, as for the shell."""
    return dict(pairs)
