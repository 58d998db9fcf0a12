"""What goes wrong with a job is said in one line that a person can act on."""

import pytest
from pydantic import ValidationError

from crds.placement import Placement
from nodeagent.case import one_line


def test_a_placement_that_cannot_be_read_names_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        Placement.model_validate_json('{"uid":"u","epoch":"soon","role":"run","spec":{"command":["true"]}}')
    said = one_line(caught.value)
    assert said.startswith("Placement: epoch: ")
    assert "http" not in said
    assert "\n" not in said


def test_errors_without_words_are_named() -> None:
    assert one_line(TimeoutError()) == "TimeoutError"
    assert one_line(OSError("a\nb")) == "a b"
