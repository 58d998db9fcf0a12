"""apply and delete -f: files in, a changed cluster out, or one line for each error and an untouched one."""

from pathlib import Path

import pytest

from crds.job import Job
from crds.node import Node
from tests.unit.mxctl.terminal import Terminal

NODE = """apiVersion: mx/v1
kind: Node
metadata: {name: %s}
spec:
  mac: 52:54:00:77:00:%s
"""
JOB = """apiVersion: mx/v1
kind: Job
metadata: {name: w}
spec: {command: ["true"]}
"""


def test_created_then_unchanged_then_configured(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"{NODE % ('n1', '01')}---\n{JOB}")
    assert terminal.run("apply", "-f", str(path)).out == "node/n1 created\njob/w created\n"
    assert terminal.run("apply", "-f", str(path)).out == "node/n1 unchanged\njob/w unchanged\n"
    path.write_text(NODE % ("n1", "02"))
    assert terminal.run("apply", "-f", str(path)).out == "node/n1 configured\n"
    assert terminal.do(lambda store: store.get(Node, "n1")).spec.mac == "52:54:00:77:00:02"


def test_directories_are_read_to_the_bottom_and_files_in_order(terminal: Terminal, tmp_path: Path) -> None:
    inner = tmp_path / "set" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "set" / "a.yaml").write_text(NODE % ("n1", "01"))
    (inner / "b.yml").write_text(NODE % ("n2", "02"))
    (tmp_path / "set" / "readme.txt").write_text("not for us")
    said = terminal.run("apply", "-f", str(tmp_path / "set"), "-f", "-", stdin=JOB)
    assert said.out == "node/n1 created\nnode/n2 created\njob/w created\n"


@pytest.mark.parametrize("way", ["client", "server"])
def test_a_dry_run_writes_nothing(terminal: Terminal, way: str) -> None:
    before = terminal.revision
    said = terminal.run("apply", "-f", "-", f"--dry-run={way}", stdin=JOB)
    assert said.code == 0
    assert f"({way} dry run)" in said.out
    assert terminal.revision == before


def test_a_client_dry_run_needs_no_cluster(terminal: Terminal) -> None:
    terminal.down = True
    assert terminal.run("apply", "-f", "-", "--dry-run=client", stdin=JOB).code == 0


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        (JOB + "status: {}\n", ["-:5: status: status is observed, not declared: remove it"]),
        (
            f"{NODE % ('n1', '01')}---\n{NODE % ('n2', '01')}",
            ["-:11: spec.mac: 52:54:00:77:00:01 belongs to node/n1 (-:5) already"],
        ),
        (f"{JOB}---\n{JOB}", ["-:8: metadata.name: "]),
        ("# nothing\n---\n", ["-: no objects in there"]),
    ],
    ids=["status", "one MAC twice", "one name twice", "nothing"],
)
def test_what_is_wrong_with_a_set_is_said_by_line_and_nothing_is_written(terminal: Terminal, text: str, errors: list[str]) -> None:
    before = terminal.revision
    said = terminal.run("apply", "-f", "-", stdin=text)
    assert (said.code, said.out, terminal.revision) == (1, "", before)
    lines = said.err.splitlines()
    assert len(lines) == len(errors)
    for line, error in zip(lines, errors, strict=True):
        assert line.startswith(f"Error: {error}"), line


def test_errors_of_all_files_are_told_at_once(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Nod\n")
    (tmp_path / "b.yaml").write_text("{\n")
    said = terminal.run("apply", "-f", str(tmp_path))
    assert [line.split(":")[1].strip() for line in said.err.splitlines()] == [str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]


@pytest.mark.parametrize(
    ("raw", "error"),
    [(b"a: \xff", ":1: broken YAML: not UTF-8 text"), (b"a: 1\nb: \x00", ":2: broken YAML: ")],
    ids=["latin", "zero"],
)
def test_bytes_that_are_no_text(terminal: Terminal, tmp_path: Path, raw: bytes, error: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(raw)
    said = terminal.run("apply", "-f", str(path))
    assert said.code == 1
    assert said.err.startswith(f"Error: {path}{error}")


def test_missing_files_are_named(terminal: Terminal, tmp_path: Path) -> None:
    assert (
        terminal.run("apply", "-f", str(tmp_path / "nope")).err
        == f"Error: {tmp_path / 'nope'}: cannot be read: No such file or directory\n"
    )
    assert "no *.yaml" in terminal.run("apply", "-f", str(tmp_path)).err


def test_the_namespace_of_the_command_line(terminal: Terminal) -> None:
    assert terminal.run("apply", "-f", "-", "-n", "alice", stdin=JOB).out == "job/alice/w created\n"
    said = terminal.run("apply", "-f", "-", "-n", "bob", stdin=JOB.replace("name: w", "name: w, namespace: alice"))
    assert said.err == 'Error: -:3: metadata.namespace: is "alice", but -n says "bob"\n'


def test_delete_what_a_file_declares(terminal: Terminal) -> None:
    terminal.run("apply", "-f", "-", stdin=f"{NODE % ('n1', '01')}---\n{JOB}")
    said = terminal.run("delete", "-f", "-", "--wait=false", stdin=f"{NODE % ('n1', '01')}---\n{JOB}")
    assert (said.code, said.out) == (0, "job/w is being deleted\nnode/n1 deleted\n")
    assert terminal.do(lambda store: store.get(Job, "w")).metadata.deletion_timestamp is not None


def test_the_examples_can_be_applied_and_applied_again(terminal: Terminal) -> None:
    examples = str(Path(__file__).parents[3] / "examples")
    first = terminal.run("apply", "-f", examples)
    assert first.code == 0, first.err
    names = [line.removesuffix(" created") for line in first.out.splitlines()]
    assert [name for name in names if name.startswith("node/")] == ["node/n1", "node/n2", "node/n3", "node/n4"]
    assert sum(name.startswith("job/") for name in names) == 9
    assert terminal.run("apply", "-f", examples).out.splitlines() == [f"{name} unchanged" for name in names]
