from collections.abc import Callable
from pathlib import Path

import pytest

from clip import agent, apt
from clip.builder import Builder
from clip.recipe import REQUIREMENTS
from tests.fakes.workshop import FakeWorkshop


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Source of a small project of this shape."""
    directory = tmp_path / "project"
    for package in agent.PACKAGES:
        (directory / package / "inner").mkdir(parents=True)
        (directory / package / "__init__.py").write_text("")
        (directory / package / "inner/code.py").write_text(f"# {package}")
    (directory / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    (directory / "constraints.txt").write_text("".join(f"{name}==1.0\n" for name in REQUIREMENTS))
    return directory


@pytest.fixture
def workshop() -> FakeWorkshop:
    return FakeWorkshop()


@pytest.fixture
def builder(tmp_path: Path, project: Path, workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """Builds without Debian, root and network."""
    monkeypatch.setattr(apt, "mirror", lambda: "http://127.0.0.1/debian")
    monkeypatch.setattr(apt, "proxy_options", lambda: ())
    return Builder(tmp_path / "state", project, workshop, "x86_64")


Names = Callable[[], set[str]]


@pytest.fixture
def on_shelf(builder: Builder) -> Names:
    """Answers all that lies on the shelf, half-built things too."""
    return lambda: (
        {path.name for path in builder.shelf.directory.glob("*")}
        | {path.name for path in builder.shelf.directory.glob(".building*")}
    )
