"""A picture of the play for the README: the greatest crowd on one node, the first even moment after it, and the figures."""

from pathlib import Path

from rich.console import Console, RenderableType

from lab.demo.picture import draw
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
        console = Console(record=True, width=100, file=Path("/dev/null").open("w"))  # noqa: SIM115 - lives as long as the process
        busy = [seen for seen in self._scenes if not seen[0].finished] or self._scenes
        crowded = max(range(len(busy)), key=lambda at: _crowd(busy[at][0]))
        even = min(range(crowded, len(busy)), key=lambda at: _crowd(busy[at][0]))
        for scene, seconds in (busy[crowded], busy[even]):
            console.print(draw(scene, seconds, title))
        console.print(figures, highlight=False)
        console.save_svg(str(file), title="scripts/demo")


def _crowd(scene: Scene) -> float:
    """How much more than the mean the fullest node has."""
    demands = [node.cpu_demand for node in scene.nodes]
    return max(demands) - sum(demands) / len(demands)
