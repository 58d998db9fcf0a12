"""docs/provisioning.md says what is true: its objects can be applied, its commands and options exist, its picture is current."""

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest

from crds.codec import parse_documents
from mxctl.cli import cli
from tests.unit.mxctl.terminal import Terminal

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGE = (DOCS / "provisioning.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [
    part.strip()
    for kind, block in BLOCKS
    if kind == "bash"
    for line in block.splitlines()
    for part in line.partition(" #")[0].split("&&")
    if part.strip().startswith("mxctl ")
]


def test_the_objects_can_be_applied(terminal: Terminal) -> None:
    [text] = [block for kind, block in BLOCKS if kind == "yaml" and "apiVersion" in block]
    said = terminal.run("apply", "-f", "-", stdin=text)
    assert said.code == 0, said.err


def test_the_power_drivers_are_understood() -> None:
    [text] = [block for kind, block in BLOCKS if kind == "yaml" and "power:" in block]
    lines = [line for line in text.splitlines() if "power:" in line]
    assert len(lines) == 3
    for line in lines:
        parse_documents(f"apiVersion: mx/v1\nkind: Node\nmetadata: {{name: n1}}\nspec:\n{line}\n", "page")


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_and_options_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="mxctl")
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 20


def test_the_picture_is_up_to_date() -> None:
    drawn = runpy.run_path(str(DOCS.parent / "scripts/draw-boot-path"))["draw"]()
    assert (DOCS / "boot-path.svg").read_text(encoding="utf-8") == drawn, "run scripts/draw-boot-path > docs/boot-path.svg"
