"""Draws a scene for the terminal: a bar of runnable tasks for each node, and the moves as they happen."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from crds.migration import Migration, MigrationPhase
from crds.quantity import format_cpu, human_memory
from lab.demo.scene import NodeScene, Scene

SHOWN_MOVES = 9
WIDTH = 118
_BAR = 27


def draw(scene: Scene, seconds: float, title: str) -> RenderableType:
    """The whole picture; ``seconds`` since the jobs were declared."""
    footer = f"{scene.finished}/{len(scene.jobs)} jobs done   {len(scene.moved)} moves   {seconds:.0f} s"
    return Panel(Group(_nodes(scene), Text(), _moves(scene)), title=title, subtitle=footer, width=WIDTH)


def _nodes(scene: Scene) -> Table:
    table = _table()
    table.add_column("node", min_width=4)
    table.add_column("runnable", min_width=_BAR)
    table.add_column("CPUs", justify="right", min_width=4)
    table.add_column("memory", justify="right", min_width=6)
    table.add_column("jobs", overflow="ellipsis", no_wrap=True, ratio=1)
    for node in scene.nodes:
        table.add_row(
            Text(node.name, style="bold" if node.ready else "red"),
            _bar(node.cpu_demand),
            format_cpu(node.cpu_capacity),
            human_memory(node.memory_used),
            _jobs(node),
        )
    return table


def _table() -> Table:
    """The last column takes what the terminal has left, and is cut there."""
    return Table(box=None, pad_edge=False, show_edge=False, expand=True)


def _bar(demand: float) -> Text:
    """Three cells for each runnable task; red from the fourth task on."""
    cells = min(_BAR, round(demand * 3))
    text = Text("█" * cells, style="green" if demand < 2.5 else "yellow" if demand < 3.5 else "red")
    return text.append("·" * (_BAR - cells), style="dim")


def _jobs(node: NodeScene) -> Text:
    text = Text()
    for name in node.jobs:
        text.append(name + " ", style="bold yellow" if name in node.moving else "")
    return text


def _moves(scene: Scene) -> Table:
    table = _table()
    table.add_column("moves", min_width=9)
    table.add_column("", min_width=7)
    table.add_column("frozen", justify="right", min_width=7)
    table.add_column("why", overflow="ellipsis", no_wrap=True, ratio=1)
    shown = scene.migrations[-SHOWN_MOVES:]
    for migration in shown:
        table.add_row(migration.spec.job, _way(migration), _freeze(migration), migration.spec.reason)
    for _ in range(SHOWN_MOVES - len(shown)):
        table.add_row("", "", "", "")
    return table


def _way(migration: Migration) -> Text:
    styles = {MigrationPhase.SUCCEEDED: "green", MigrationPhase.FAILED: "red"}
    way = f"{migration.status.source or '?'} → {migration.status.destination or '?'}"
    return Text(way, style=styles.get(migration.status.phase, "yellow"))


def _freeze(migration: Migration) -> str:
    if migration.status.phase == MigrationPhase.FAILED:
        return "failed"
    return "…" if migration.status.freeze_ms is None else f"{migration.status.freeze_ms:.0f} ms"
