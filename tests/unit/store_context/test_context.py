"""The file of contexts: what is written is read back, and what is wrong is said with its place."""

from pathlib import Path

import pytest

from store import context
from store.context import Context
from store.errors import Invalid, NotFound


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "deep/config"
    monkeypatch.setenv("MXCONFIG", str(path))
    return path


def lab(name: str) -> Context:
    return Context(name=f"lab-{name}", endpoints=["10.77.0.1:2379"], netns=f"mx-{name}", shared=f"/labs/{name}/shared")


def test_contexts_come_and_go(file: Path) -> None:
    with context.changing() as contexts:
        contexts.put(lab("a"))
        contexts.put(lab("b"))
        contexts.put(lab("b"))
    assert context.current().name == "lab-b"
    assert context.current("lab-a") == lab("a")
    assert file.stat().st_mode & 0o777 == 0o600
    with context.changing() as contexts:
        contexts.remove("lab-b")
        contexts.remove("lab-b")
    assert context.current().name == "lab-a"
    with context.changing() as contexts:
        contexts.remove("lab-a")
    assert not file.exists()


def test_nothing_is_written_when_the_change_fails(file: Path) -> None:
    def change_and_fail() -> None:
        with context.changing() as contexts:
            contexts.put(lab("a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change_and_fail()
    assert not file.exists()


def test_names_are_as_people_write_them(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("contexts: [{name: far, endpoints: ['10.0.0.1:2379']}]\ncurrentContext: far\n")
    assert context.current() == Context(name="far", endpoints=["10.0.0.1:2379"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("contexts: [{name: far, endpoints: []}]", r"config: contexts\.0\.endpoints: "),
        ("contexts: [{name: far, endpoints: [x], colour: red}]", r"config: contexts\.0\.colour: "),
        ("contexts: [", "config: broken YAML"),
    ],
)
def test_a_wrong_file_is_said_with_its_place(file: Path, text: str, message: str) -> None:
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(Invalid, match=message):
        context.load()


def test_what_is_not_there_says_what_is(file: Path) -> None:
    with pytest.raises(NotFound, match=r"no current context \(known: none\); start a lab with mxctl lab up"):
        context.current()
    with context.changing() as contexts:
        contexts.put(lab("a"))
    with pytest.raises(NotFound, match=r"context 'lab-z' is not in .*config \(known: lab-a\)"):
        context.current("lab-z")


def test_a_lab_that_is_down_cannot_be_entered() -> None:
    with pytest.raises(NotFound, match="the lab is down"):
        context.enter_netns("mx-nosuchlab")
