"""A picture of simulated runs: a row for each node, darker the more loaded, an arrow for each move."""

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from reconciler.simulation.outcome import Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

MOST_ARROWS = 400
"""More moves than these are drawn without heads: they would hide the rest."""


def draw(path: str, runs: Sequence[tuple[str, Outcome]], nodes: Sequence[str]) -> None:
    """Writes an SVG or PNG, as the name ends. Raises ImportError without matplotlib, OSError."""
    import matplotlib as mpl  # late: takes long, and is wanted for a picture only

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "mx"  # equal runs give equal files
    from matplotlib import pyplot as plt
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    most = max([2.0, *(load for _, run in runs for row in run.loads.values() for _, load in row)])
    end = max([1.0, *(run.makespan for _, run in runs)])
    height = min(30.0, 1.0 + len(runs) * (0.8 + 0.22 * len(nodes)))
    figure, axes = plt.subplots(len(runs), 1, sharex=True, squeeze=False, figsize=(11, height), layout="constrained")
    colours = plt.get_cmap("YlOrRd")
    for (title, run), axis in zip(runs, axes[:, 0], strict=True):
        _rows(axis, run, nodes, most, end, colours)
        _arrows(axis, run, nodes)
        axis.set_title(f"{title}: {len(run.moves)} moves, last job ends at {run.makespan:.0f} s", fontsize=9, loc="left")
    axes[-1, 0].set_xlabel("seconds")
    mappable = ScalarMappable(Normalize(0, most), colours)
    figure.colorbar(mappable, ax=list(axes[:, 0]), label="runnable tasks by core", fraction=0.03, pad=0.01)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
    plt.close(figure)


def _rows(axis: "Axes", run: Outcome, nodes: Sequence[str], most: float, end: float, colours: "Colormap") -> None:
    for row, node in enumerate(nodes):
        points = [*run.loads.get(node, []), (end, 0.0)]
        spans = [(begin, until - begin) for (begin, _), (until, _) in pairwise(points)]
        axis.broken_barh(spans, (row - 0.42, 0.84), facecolors=[colours(load / most) for _, load in points[:-1]], linewidth=0)
    axis.set_yticks(range(len(nodes)), nodes, fontsize=7)
    axis.set_ylim(len(nodes) - 0.5, -0.5)
    axis.set_xlim(0, end)


def _arrows(axis: "Axes", run: Outcome, nodes: Sequence[str]) -> None:
    row = {node: number for number, node in enumerate(nodes)}
    style = "->" if len(run.moves) <= MOST_ARROWS else "-"
    for move in run.moves:
        colour = "black" if move.ok else "red"
        look = {"arrowstyle": style, "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0}
        axis.annotate("", (move.time, row[move.destination]), (move.time, row[move.source]), arrowprops=look)
