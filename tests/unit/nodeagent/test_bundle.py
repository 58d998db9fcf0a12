"""Modules from one file: the same modules as without it."""

import subprocess
import sys
from pathlib import Path

import pytest

from nodeagent import bundle

RUN = """
import sys
sys.path[:0] = [{project!r}, {elsewhere!r}]
from nodeagent.bundle import use
print(use({file!r}))
import things.inner, importlib.resources
print(things.__file__, things.__path__, things.inner.WORD, things.inner.__spec__.origin)
print(importlib.resources.files("things").joinpath("data.txt").read_text())
"""


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A bundle of a package that was compiled where it does not stay."""
    package = tmp_path / "here/things"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner.py").write_text("WORD = 'bundled'\n")
    (package / "data.txt").write_text("data")
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], check=True, timeout=60)
    project = Path(bundle.__file__).parents[1]
    command = [sys.executable, "-m", "nodeagent.bundler", str(tmp_path / "b"), "things.inner", str(tmp_path / "here")]
    environment = {"PYTHONPATH": f"{project}:{tmp_path / 'here'}"}
    subprocess.run([*command, str(tmp_path / "there")], check=True, timeout=60, env=environment)
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "there/things/inner.py").write_text("WORD = 'from its file'\n")
    return tmp_path / "b"


def run(file: Path) -> list[str]:
    project = str(Path(bundle.__file__).parents[1])
    script = RUN.format(project=project, elsewhere=str(file.parent / "there"), file=str(file))
    return subprocess.run(
        [sys.executable, "-c", script], check=True, text=True, capture_output=True, timeout=60
    ).stdout.splitlines()


def test_modules_come_from_it_and_know_where_they_belong(made: Path) -> None:
    there = made.parent / "there/things"
    assert run(made) == ["True", f"{there}/__init__.py ['{there}'] bundled {there}/inner.py", "data"]


def test_one_for_another_python_is_not_used(made: Path) -> None:
    made.write_bytes(b"old!" + made.read_bytes()[4:])
    assert run(made)[0] == "False" and "from its file" in run(made)[1]


def test_none_at_all(made: Path) -> None:
    made.unlink()
    assert run(made)[0] == "False" and "from its file" in run(made)[1]
