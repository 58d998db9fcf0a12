"""From what an Image's spec asks for to the layers that make it, by name. Pure.

What was asked for (``recipe``) is named apart from what came out (the revision's digest): the first tells whether anything has to
be built at all, the second whether a node runs what it should.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from clip import kernel
from clip.additions import SYSTEMD_PACKAGES, Additions
from clip.cache import BASE
from clip.recipe import Recipe, check_packages
from crds.image import ImageSpec, Init


@dataclass(frozen=True, slots=True)
class Blueprint:
    """What to build. ``kernel`` is a Debian package."""

    base: Recipe
    kernel: str
    additions: Additions
    kernel_arguments: tuple[str, ...]

    @property
    def base_layer(self) -> str:
        return f"{BASE}{self.base.digest}"

    @property
    def kernel_layer(self) -> str:
        return kernel.layer_name(self.kernel, self.base.machine)

    def recipe(self, agent: str, boot: str) -> str:
        """12 hexadecimal digits over all that was asked for; ``agent`` and ``boot`` are the names of those layers."""
        facts = (
            self.base.text(),
            kernel.text(self.kernel, self.base.machine),
            self.additions.text(),
            " ".join(self.kernel_arguments),
            agent,
            boot,
        )
        return _digest(facts)


def draw(spec: ImageSpec, machine: str, pins: tuple[str, ...]) -> Blueprint:
    """The blueprint of a spec, for machines of this architecture (as uname says it) and these Python packages.

    ValueError naming what cannot be a package.
    """
    more = SYSTEMD_PACKAGES if spec.init is Init.SYSTEMD else ()
    base = Recipe(machine, pins, check_packages((*spec.packages, *more)))
    return Blueprint(base, spec.kernel, Additions.of(spec), tuple(spec.kernel_arguments))


def revision_digest(contents: Iterable[str], boot: str, kernel_arguments: Iterable[str], init: Init) -> str:
    """12 hexadecimal digits over all that a node runs: the digests of its layers, topmost first, and how it boots."""
    return _digest((*contents, boot, " ".join(kernel_arguments), init))


def _digest(facts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]
