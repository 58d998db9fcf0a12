"""docs/states.md is what the tables say."""

from enum import StrEnum
from pathlib import Path

from crds import states
from crds.diagram import document, meanings, section, tables

FILE = Path(__file__).resolve().parents[3] / "docs/states.md"


class Light(StrEnum):
    """A traffic light."""

    RED = "Red"
    """Stop."""
    GREEN = "Green"
    OFF = "Off"


def test_the_file_is_up_to_date() -> None:
    assert FILE.read_text() == document(), "run .venv/bin/python -m crds.diagram > docs/states.md"


def test_every_table_is_drawn() -> None:
    drawn = dict(tables())
    assert {"JOB", "MIGRATION", "REPORT", "SOURCE_MOVE", "DESTINATION_MOVE"} <= drawn.keys()
    assert drawn["SOURCE_MOVE"] is states.SOURCE_MOVE


def test_a_section_has_all_arrows_and_words() -> None:
    table = {Light.RED: frozenset({Light.GREEN, Light.OFF}), Light.GREEN: frozenset({Light.OFF}), Light.OFF: frozenset()}
    text = section("TRAFFIC_LIGHT", table)
    assert text.splitlines()[:3] == ["## Traffic light", "", "A traffic light."]
    arrows = [line.strip() for line in text.splitlines() if "-->" in line]
    assert arrows == ["[*] --> Red", "Red --> Green", "Red --> Off", "Green --> Off", "Off --> [*]"]
    assert text.splitlines()[-1] == "- Red: Stop."
    assert meanings(Light) == {"Red": "Stop.", "Green": "", "Off": ""}
