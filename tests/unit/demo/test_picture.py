"""The live picture fits the terminal, whatever its width."""

import io

import pytest
from rich.console import Console

from crds.migration import Migration, MigrationPhase
from lab.demo.picture import WIDTH, draw
from lab.demo.scene import NodeScene, Scene

REASON = "n1 has 9.0 runnable on 0.3 cores, n2 none on 0.3: finishes 9.0x sooner for 0.2 s of freeze"


def moved() -> Migration:
    status = {"phase": MigrationPhase.SUCCEEDED, "source": "n1", "destination": "n2", "freezeMs": 1234.5}
    spec = {"job": "work-1", "to": "n2", "reason": REASON}
    return Migration.model_validate({"metadata": {"name": "work-1-2", "namespace": "default"}, "spec": spec, "status": status})


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_wraps_and_no_figure_is_cut(width: int) -> None:
    jobs = tuple(f"work-{number}" for number in range(1, 9))
    nodes = (
        NodeScene("n1", True, 0.3, 9.0, 300 << 20, jobs, frozenset({"work-2"})),
        NodeScene("n2", False, 0.3, 0.0, 0, (), frozenset()),
    )
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(draw(Scene(nodes, (), (moved(),)), 12.0, "title"))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert {len(line) for line in lines} == {min(width, WIDTH)}
    [line] = [line for line in lines if "n1 → n2" in line]
    assert "work-1" in line
    assert "1234 ms" in line
    assert REASON[:20] in line
