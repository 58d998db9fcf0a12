"""A picture of the play for the README: the greatest crowd on one node, the first even moment after it, and the figures."""

import os
import re
from pathlib import Path

from rich.console import Console, RenderableType

from lab.demo.picture import WIDTH, draw
from lab.demo.scene import Scene


class Recording:
    """Keeps the scenes; ``save`` chooses."""

    def __init__(self) -> None:
        self._scenes: list[tuple[Scene, float]] = []

    def see(self, scene: Scene, seconds: float) -> None:
        """Remember the scene if something changed since the last one."""
        if scene.jobs and (not self._scenes or self._scenes[-1][0] != scene):
            self._scenes.append((scene, seconds))

    def save(self, file: Path, title: str, figures: RenderableType) -> None:
        """Write the SVG."""
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            console = Console(record=True, width=WIDTH, file=nowhere)
            self._print(console, title)
            console.print(figures, highlight=False)
        # The picture must be whole without the network: rich names fonts to be fetched.
        svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="scripts/demo"), flags=re.DOTALL)
        file.write_text(svg.replace("Fira Code", "DejaVu Sans Mono"), encoding="utf-8")

    def _print(self, console: Console, title: str) -> None:
        busy = [seen for seen in self._scenes if not seen[0].finished] or self._scenes
        crowded = max(range(len(busy)), key=lambda at: _crowd(busy[at][0]))
        even = min(range(crowded, len(busy)), key=lambda at: _crowd(busy[at][0]))
        for scene, seconds in (busy[crowded], busy[even]):
            console.print(draw(scene, seconds, title))


def _crowd(scene: Scene) -> float:
    """How much more than the mean the fullest node has."""
    demands = [node.cpu_demand for node in scene.nodes]
    return max(demands) - sum(demands) / len(demands)
