"""What is typed at a terminal: the keys that detach, however they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mxctl.core.failures import Failure
from mxctl.core.keyboard import DetachKeys, parse_keys


@pytest.mark.parametrize(
    ("text", "keys"), [("ctrl-p,ctrl-q", b"\x10\x11"), ("ctrl-]", b"\x1d"), ("ctrl-a,d", b"\x01d"), ("ctrl-A", b"\x01"), ("", b"")]
)
def test_keys_are_read(text: str, keys: bytes) -> None:
    assert parse_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pp", "enter", "ctrl-1", "ü"])
def test_what_is_no_key_is_told(text: str) -> None:
    with pytest.raises(Failure, match="is no key"):
        parse_keys(text)


@given(st.lists(st.sampled_from([b"a", b"\x10", b"\x11", b"xy", b"\x10x"])))
def test_all_that_is_typed_before_the_keys_gets_through(pieces: list[bytes]) -> None:
    keys = DetachKeys(b"\x10\x11")
    through, left = b"", False
    for piece in pieces:
        data, left = keys.feed(piece)
        through += data
        if left:
            break
    typed = b"".join(pieces)
    at = typed.find(b"\x10\x11")
    assert left == (at >= 0)
    if left:
        assert through == typed[:at]
    else:
        assert through == typed.removesuffix(b"\x10"), "only the beginning of the keys is held back"


def test_without_keys_nothing_is_held_back() -> None:
    assert DetachKeys(b"").feed(b"\x10\x11") == (b"\x10\x11", False)
