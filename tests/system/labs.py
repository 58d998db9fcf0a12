"""Names of labs in the tests."""

import os

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_PLACES = 4
_MOST = 12


def lab_name(name: str) -> str:
    """``name`` and this process's number: other tests on this machine, and what killed ones left, are not in its way."""
    number, mark = os.getpid(), ""
    for _ in range(_PLACES):
        number, digit = divmod(number, len(_DIGITS))
        mark = _DIGITS[digit] + mark
    return name[: _MOST - _PLACES] + mark
