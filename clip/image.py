"""The node image: what a node's root directory is made of.

Two immutable layers, a base (Debian and programs, half a minute) and the agent (our own source, a second). A node's root
is an overlay with the agent over the base.
"""

import functools
import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clip import agent, base
from clip.cache import BASE, Shelf, state_dir
from clip.errors import ImageError, SourceChanged
from clip.failures import told_as_image_errors
from clip.progress import Report, silent
from clip.recipe import CONSTRAINTS, Recipe, check_packages, select_pins
from clip.workshop import HOST, Workshop

PHASES = base.PHASES + 1
AGENT = "agent-"
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class NodeImage:
    """A complete image. ``lower`` is ready for an overlay's ``lowerdir=``."""

    base: str
    agent: str
    state: Path

    @property
    def digest(self) -> str:
        """12 hexadecimal digits over both layers."""
        return hashlib.sha256(f"{self.base} {self.agent}".encode()).hexdigest()[:12]

    @property
    def base_root(self) -> Path:
        """The tree of the base layer: programs such as criu and etcd."""
        return Shelf.of(self.state).root(self.base)

    @property
    def agent_root(self) -> Path:
        """The tree of the agent layer."""
        return Shelf.of(self.state).root(self.agent)

    @property
    def lower(self) -> str:
        """The layers, topmost first."""
        return f"{self.agent_root}:{self.base_root}"

    def hold(self, user: str) -> None:
        """Keeps both layers from being pruned until ``user`` releases them."""
        for layer in (self.base, self.agent):
            Shelf.of(self.state).hold(layer, user)

    def release(self, user: str) -> None:
        """The opposite of hold."""
        for layer in (self.base, self.agent):
            Shelf.of(self.state).release(layer, user)


def project_dir() -> Path:
    """The checkout this code runs from; the agent layer is made from it."""
    return Path(__file__).resolve().parent.parent


def pins(project: Path) -> tuple[str, ...]:
    """The exact versions of the agent's Python packages. ImageError."""
    try:
        return select_pins((project / CONSTRAINTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImageError(f"node image: {error}") from error


def wanted(state: Path | None = None, project: Path | None = None, packages: Sequence[str] = ()) -> tuple[NodeImage, Recipe]:
    """The image that belongs to the source as it is now, built or not, and its base's recipe.

    ``packages`` are Debian packages beside the usual ones.
    """
    project = project or project_dir()
    try:
        extra = check_packages(packages)
    except ValueError as error:
        raise ImageError(f"node image: {error}") from error
    recipe = Recipe(platform.machine(), pins(project), extra)
    base_name = f"{BASE}{recipe.digest}"
    agent_name = f"{AGENT}{agent.digest(project, base_name)}"
    return NodeImage(base_name, agent_name, state or state_dir()), recipe


def is_built(image: NodeImage) -> bool:
    """Both layers are there."""
    return image.base_root.is_dir() and image.agent_root.is_dir()


def ensure(
    report: Report = silent, *, state: Path | None = None, project: Path | None = None, packages: Sequence[str] = ()
) -> NodeImage:
    """The image of the source as it is now, built where it is not there yet. Needs root then; ImageError."""
    image, recipe = wanted(state, project, packages)
    shelf = Shelf.of(image.state)
    with told_as_image_errors():
        shelf.ensure(image.base, lambda layer, lock: base.build(layer, recipe, report, lock))
        image = replace(image, agent=ensure_agent(shelf, image.base, project or project_dir(), report))
        shelf.prune(frozenset((image.base, image.agent)))
    return image


def ensure_agent(shelf: Shelf, base_name: str, project: Path, report: Report = silent, workshop: Workshop = HOST) -> str:
    """The name of the agent layer over that base, built where it is not there. ImageError.

    Of the source as it is at this moment: it may have been edited while the base was built, or even just now.
    """
    for attempt in range(_ATTEMPTS):
        expected = agent.digest(project, base_name)
        name = f"{AGENT}{expected}"
        try:
            shelf.ensure(name, functools.partial(_build_agent, project, shelf.root(base_name), expected, report, workshop))
        except SourceChanged:
            if attempt == _ATTEMPTS - 1:
                raise
        else:
            return name
    raise AssertionError("unreachable: the loop returns or raises")


def _build_agent(
    project: Path, base_root: Path, expected: str, report: Report, workshop: Workshop, layer: Path, _lock: int
) -> None:
    report("adding our own packages")
    agent.build(layer, project, base_root, expected, workshop)
