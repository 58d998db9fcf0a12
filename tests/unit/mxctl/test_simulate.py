"""mxctl simulate: what it prints, draws and refuses."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mxctl.cli import cli
from mxctl.core.failures import tell

SCENARIO = """\
apiVersion: mx/v1
kind: Scenario
metadata: {name: pile}
spec:
  nodes: [{name: n, count: 3, memory: 64Mi}]
  jobs: [{name: a, count: 6, cpuTime: 20s, node: n1, memory: 1Mi}]
"""
POLICY = """\
apiVersion: mx/v1
kind: BalancePolicy
metadata: {name: calm}
spec: {goal: none}
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    (tmp_path / "p.yaml").write_text(POLICY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["simulate", *words])


def words_of(result: Result) -> str:
    assert result.exception is not None
    return "\n".join(tell(result.exception)) if not isinstance(result.exception, SystemExit) else result.output


def test_the_policy_stands_beside_others(files: Path) -> None:
    lines = run("-f", "s.yaml", "--against", "none,pvm").output.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ["METHOD", "mx", "none", "pvm"]
    mx, none = (float(lines[i].split()[1]) for i in (1, 2))
    assert mx < none


def test_json_tells_each_move_with_its_reason(files: Path) -> None:
    data = json.loads(run("-f", "s.yaml", "--json", "--seeds", "2").output)
    mx = data["methods"][0]
    assert (mx["name"], mx["jobs"], [one["seed"] for one in mx["runs"]]) == ("mx", 6, [0, 1])
    assert mx["moves_of_the_first_run"][0]["from"] == "n1" and mx["moves_of_the_first_run"][0]["reason"]


def test_another_policy_can_be_tried(files: Path) -> None:
    data = json.loads(run("-f", "s.yaml", "--json", "--policy", "p.yaml", "--against", "").output)
    assert [(one["name"], one["moves"]) for one in data["methods"]] == [("mx", 0)]


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_picture_is_drawn(files: Path, kind: str) -> None:
    assert run("-f", "s.yaml", "--against", "none", "--plot", f"out.{kind}").exit_code == 0
    picture = (files / f"out.{kind}").read_bytes()
    assert picture[:5] in (b"<?xml", b"\x89PNG\r") and len(picture) > 5000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SCENARIO.replace("cpuTime", "cputime"), 's.yaml:6: spec.jobs[0].cputime: unknown field; did you mean "cpuTime"?'),
        (SCENARIO.replace("memory: 1Mi", "memory: 1Xi"), "s.yaml:6: spec.jobs[0].memory"),
        (SCENARIO.replace("Scenario", "Node"), "s.yaml:1: no Scenario"),
        (SCENARIO + "  trace: {file: gone.swf}\n", "gone.swf: cannot be read"),
        (SCENARIO + "  : {\n", "s.yaml:"),
    ],
)
def test_errors_name_file_and_line(files: Path, text: str, words: str) -> None:
    (files / "s.yaml").write_text(text)
    assert words in words_of(run("-f", "s.yaml"))


def test_a_broken_trace_is_named_with_its_line(files: Path) -> None:
    (files / "s.yaml").write_text(SCENARIO + "  trace: {file: t.swf}\n")
    (files / "t.swf").write_text("; x\n1 2 3\n")
    assert "t.swf:2: 3 fields" in words_of(run("-f", "s.yaml"))


@pytest.mark.parametrize(
    ("option", "words"),
    [(("--against", "mosx"), '"mosx" is no method'), (("--plot", "x.pdf"), "neither"), (("--policy", "s.yaml"), "")],
)
def test_what_cannot_be_done_is_said_at_once(files: Path, option: tuple[str, str], words: str) -> None:
    assert words in words_of(run("-f", "s.yaml", *option))
