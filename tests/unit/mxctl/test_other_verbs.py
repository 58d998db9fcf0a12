"""describe, events, config, version, completion and --help."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import click
import pytest

from crds import keys
from crds.job import RUNNING, Job, Move
from crds.load import Alive
from crds.meta import set_condition
from lab.errors import LabError
from mxctl.__main__ import main
from mxctl.cli import VERBS, cli
from mxctl.core.verb import Verb
from mxctl.lab import chosen
from store import context as contexts
from store.context import Context
from store.events import EventRecorder
from store.objects import utcnow
from store.store import Store
from tests.resources import node
from tests.unit.mxctl.terminal import Terminal, job

OURS = [name for name in VERBS if name != "lab"]


@pytest.fixture
def eventful(terminal: Terminal) -> Terminal:
    terminal.create(job(), node())

    async def record(store: Store) -> None:
        recorder = EventRecorder(store, "test")
        await recorder.record(await store.get(Job, "w"), "Warning", "NoNodeFits", "no room")
        await recorder.record(await store.get(Job, "w"), "Warning", "NoNodeFits", "no room")
        await recorder.record(node(), "Normal", "Ready", "it is there")

    terminal.do(record)
    return terminal


def test_describe_shows_conditions_moves_and_events(eventful: Terminal) -> None:
    def change(found: Job) -> None:
        found.status.conditions = set_condition([], RUNNING, True, "Started", "on n1", utcnow())
        found.status.moves = [
            Move.model_validate({"migration": "m", "source": "n1", "destination": "n2", "time": utcnow(), "freezeMs": 33.6})
        ]

    eventful.status(Job, "w", change)
    said = eventful.run("describe", "job", "w")
    assert said.code == 0
    lines = [line.split() for line in said.out.splitlines()]
    assert ["Name:", "w"] in lines
    assert any(line[:4] == ["Running", "True", "Started", "on"] for line in lines)
    assert any("34" in line and "n2" in line for line in lines)
    assert any(line[-3:] == ["no", "room", "(x2)"] for line in lines)
    assert "it is there" not in said.out


def test_describe_needs_no_events(terminal: Terminal) -> None:
    terminal.create(node())
    assert terminal.run("describe", "node/n1").out.endswith("Events:\n  none\n")
    assert terminal.run("describe", "node/n9").code == 1


def test_events_of_all_objects_and_of_one(eventful: Terminal) -> None:
    out = eventful.run("events", "--no-headers").out.splitlines()
    assert sorted(line.split()[2:4] for line in out) == [["NoNodeFits", "job/w"], ["Ready", "node/n1"]]
    assert "NoNodeFits" not in eventful.run("events", "--for", "node/n1").out
    assert eventful.run("events", "-n", "alice").err == "No events found.\n"
    assert eventful.run("get", "events", "-o", "name").out.count("event/") == 2


def test_version_names_all_parts(terminal: Terminal) -> None:
    terminal.put(
        keys.alive("n1"), Alive(boot_id="b", agent_version="9.9.9", address="x:1", criu="4.2.1", kernel="6.1", since=utcnow())
    )
    out = terminal.run("version").out
    assert "9.9.9" in out
    assert "Reconciler:  test" in out
    terminal.down = True
    assert terminal.run("version", "--client").code == 0


def test_contexts_are_listed_and_chosen(terminal: Terminal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXCONFIG", str(tmp_path / "config"))
    assert terminal.run("config", "current-context").code == 1
    with contexts.changing() as known:
        known.put(Context(name="a", endpoints=["x:1"]))
        known.put(Context(name="b", endpoints=["x:2"]))
    assert terminal.run("config", "current-context").out == "b\n"
    assert terminal.run("config", "use-context", "a").out == 'Switched to context "a".\n'
    assert [line.split()[:2] for line in terminal.run("config", "get-contexts").out.splitlines()[1:]] == [["*", "a"], ["b", "x:2"]]
    said = terminal.run("config", "use-context", "c")
    assert (said.code, len(said.err.splitlines())) == (1, 1)
    assert terminal.run("config", "current-context").out == "a\n"


def mxctl(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxctl", *args], capture_output=True, text=True, timeout=60, check=False, env=os.environ | env
    )


def test_without_a_context_the_next_step_is_named(tmp_path: Path) -> None:
    said = mxctl("get", "nodes", MXCONFIG=str(tmp_path / "none"))
    assert said.returncode == 1
    assert said.stderr == "Error: no current context (known: none); start a lab with mxctl lab up, or pass --context NAME\n"


def test_help_comes_at_once_and_imports_no_verb() -> None:
    started = time.monotonic()
    said = mxctl("--help")
    assert time.monotonic() - started < 5
    assert said.returncode == 0
    probe = "import sys, mxctl.cli; print([m for m in sys.modules if m in ('pydantic', 'grpc', 'rich', 'yaml')])"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True).stdout
    assert out.strip() == "[]"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(terminal: Terminal, shell: str) -> None:
    assert "_MXCTL_COMPLETE" in terminal.run("completion", shell).out


def test_words_are_completed() -> None:
    said = mxctl(_MXCTL_COMPLETE="bash_complete", COMP_WORDS="mxctl un", COMP_CWORD="1")
    assert said.stdout.split() == ["plain,uncordon"]
    said = mxctl(_MXCTL_COMPLETE="bash_complete", COMP_WORDS="mxctl get jobs,nodes,mi", COMP_CWORD="2")
    assert said.stdout.split() == ["plain,jobs,nodes,migrations"]


def verbs(command: click.Command, name: str) -> list[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        return [pair for inner in command.commands.values() for pair in verbs(inner, f"{name} {inner.name}")]
    return [(name, command)]


@pytest.mark.parametrize("name", OURS)
def test_every_verb_has_help_with_examples(terminal: Terminal, name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    for words, verb in verbs(command, name):
        said = terminal.run(*words.split(), "--help")
        assert said.code == 0
        assert isinstance(verb, Verb)
        assert verb.examples
        assert "Examples:" in said.out
        assert any(line.strip().startswith(f"mxctl {words}") or words == "completion" for line in said.out.splitlines())


def test_the_list_of_verbs_says_what_the_verbs_say() -> None:
    for name in OURS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.short_help == VERBS[name][1]


def test_an_unknown_verb_is_one_of_our_errors(terminal: Terminal) -> None:
    said = terminal.run("gett")
    assert said.code == 1
    assert "gett" in said.err


def test_output_that_cannot_be_written_is_one_line(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mxctl.get._text", full)
    terminal.create(job())
    said = terminal.run("get", "jobs")
    assert (said.code, said.out, said.err) == (1, "", "Error: the output cannot be written: No space left on device\n")


def test_ctrl_c_while_the_program_is_read_leaves_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "mxctl.cli", Interrupted("mxctl.cli"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("labs", "current", "meant"),
    [
        (["a"], "lab-b", "a"),
        (["a", "b"], "lab-b", "b"),
        (["a", "lab"], "lab-a", "a"),
        (["a", "lab"], "rack", "lab"),
        ([], None, "lab"),
    ],
)
def test_the_lab_that_is_meant(
    labs: list[str], current: str | None, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MXCONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("lab.model.names", lambda: labs)
    if current:
        with contexts.changing() as known:
            known.put(Context(name=current, endpoints=["x:1"]))
    assert chosen(None) == meant


def test_which_of_several_labs_must_be_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXCONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("lab.model.names", lambda: ["a", "b"])
    with pytest.raises(LabError, match=r"several labs \(a, b\)"):
        chosen(None)


@pytest.mark.parametrize(
    ("words", "node", "argv"),
    [
        (["--name", "t", "n1", "--", "ls", "--name", "x"], "n1", ["ls", "--name", "x"]),
        (["n1", "--name", "t", "--", "ls", "-l", "--", "-h"], "n1", ["ls", "-l", "--", "-h"]),
        (["--name", "t", "n1", "ls", "--name", "x", "-h"], "n1", ["ls", "--name", "x", "-h"]),
    ],
)
def test_what_lab_exec_runs(
    terminal: Terminal, words: list[str], node: str, argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    def line(lab: str, node: str, argv: Sequence[str]) -> list[str]:
        asked.append((lab, node, list(argv)))
        return ["true"]

    monkeypatch.setattr("lab.cluster.exec_command", line)
    monkeypatch.setattr("os.execvp", lambda file, args: None)
    assert terminal.run("lab", "exec", *words).code == 0
    assert asked == [("t", node, argv)]
