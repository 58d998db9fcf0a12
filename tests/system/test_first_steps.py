"""The lines of the README, as they stand."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.commands import PROJECT, Said, Terminal

pytestmark = [pytest.mark.alone, pytest.mark.timeout(300)]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "config")
    take_down = ".venv/bin/mxctl lab down --name t"
    terminal.run(take_down)  # left by a run that was killed: these lines name their lab themselves
    yield terminal
    terminal.run(take_down)


def first_steps() -> list[str]:
    """The commands of the README's block under "First steps", one entry for each line a person types (a quote may span lines)."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"## First steps.*?```bash\n(.*?)```", text, re.DOTALL)
    assert found, "README.md has no block of first steps"
    return re.split(r"\n(?=sudo )", found[1].strip())


def counted(log: str) -> list[int]:
    return [int(line) for line in log.split()]


def test_the_first_steps_of_the_readme_work_as_they_stand(terminal: Terminal) -> None:
    said: dict[str, Said] = {}
    for command in first_steps():
        said[command] = terminal.run(command)
        assert said[command].code == 0, f"{command}\n{said[command].out}{said[command].err}"
    answers = {command.split("#")[0].strip(): each.out for command, each in said.items()}
    applied = next(out for command, out in answers.items() if "apply -f" in command)
    assert "node/n1 configured" in applied or "node/n1 created" in applied or "node/n1 unchanged" in applied
    assert next(out for command, out in answers.items() if "jsonpath" in command) == "n2"
    numbers = counted(next(out for command, out in answers.items() if command.endswith("logs w")))
    assert len(numbers) > 20
    assert numbers == list(range(len(numbers))), "the job's output has a gap or a repetition"
