"""Builds a revision of an image: its layers one by one, each unless it is on the shelf, then what can be said about the whole.

The kernel comes first, because a mistake in its name is found soonest. Layers are named by what they are made of, so one that
another image or a lab's nodes have already is used as it is. A layer that is built *anew* may come out different, as the mirror has
moved on: then it gets a name of its own beside the older one, which is still somebody's root.
"""

import functools
import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from clip import additions, agent, base, blueprint, image, initramfs, kernel
from clip.blueprint import Blueprint
from clip.cache import Build, Shelf, state_dir
from clip.content import Content, measured
from clip.errors import ImageError
from clip.failures import told_as_image_errors
from clip.progress import Report, silent
from clip.workshop import HOST, Workshop
from crds.image import ImageSpec
from crds.manifest import Manifest

_OWN_PHASES = 4  # files, agent, boot, measuring


@dataclass(frozen=True, slots=True)
class Built:
    """A revision as it lies on the shelf. ``layers`` topmost first; ``size`` in bytes."""

    layers: tuple[str, ...]
    boot: str
    recipe: str
    size: int
    manifest: Manifest


@dataclass(frozen=True)
class Builder:
    """Builds on this machine, from this project's source."""

    state: Path = field(default_factory=state_dir)
    project: Path = field(default_factory=image.project_dir)
    workshop: Workshop = HOST
    machine: str = field(default_factory=platform.machine)

    @property
    def shelf(self) -> Shelf:
        return Shelf.of(self.state)

    def recipe(self, spec: ImageSpec) -> str:
        """What Revision.recipe is when it is what this spec and this source ask for. Builds nothing. ImageError."""
        return self._recipe(self._draw(spec))

    def phases(self, spec: ImageSpec, *, anew: bool = False) -> int:
        """How many phases ``build`` will report, about. ImageError."""
        plan = self._draw(spec)
        missing = [
            phases
            for name, phases in ((plan.base_layer, base.PHASES), (plan.kernel_layer, kernel.PHASES))
            if anew or not self.shelf.has(name)
        ]
        return sum(missing) + _OWN_PHASES

    def build(self, spec: ImageSpec, report: Report = silent, *, anew: bool = False) -> Built:
        """The revision of this spec. ``anew``: Debian's part is built again from the mirror as it is now. Needs root; ImageError.

        Whatever goes wrong, no half-built layer is left; complete ones stay on the shelf for the next attempt.
        """
        plan = self._draw(spec)
        with told_as_image_errors():
            if self.shelf.is_busy():
                report("waiting for another build on this machine")
            return self._build(plan, report, anew)

    def _build(self, plan: Blueprint, report: Report, anew: bool) -> Built:
        kernel_layer = self._debian(
            plan.kernel_layer, lambda layer, lock: kernel.build(layer, plan.kernel, self.workshop, report, lock), anew
        )
        base_layer = self._debian(
            plan.base_layer, lambda layer, lock: base.build(layer, plan.base, report, lock, self.workshop), anew
        )
        layers = [kernel_layer, base_layer]
        if not plan.additions.is_empty:
            report("adding files and users")
            added = plan.additions.layer(base_layer)
            self._ensure(added, lambda layer, _: additions.build(layer, plan.additions, self.shelf.root(base_layer)))
            layers.insert(0, added)
        layers.insert(0, image.ensure_agent(self.shelf, base_layer, self.project, report, self.workshop))
        report("making what machines boot")
        boot = initramfs.ensure(self.shelf, kernel_layer)
        report("reading what came out")
        return self._describe(plan, layers, boot)

    def _debian(self, name: str, build: Build, anew: bool) -> str:
        """The name of the newest layer of that recipe."""
        variants = self._variants(name)
        if variants and not anew:
            self._ensure(variants[-1], build)  # remembers its use
            return variants[-1]
        self.workshop.check()
        return self.shelf.rebuild(name, _and_measure(build), functools.partial(self._choose, name))

    def _variants(self, name: str) -> list[str]:
        """Layers of one recipe, oldest first."""
        found = [path for path in self.shelf.directory.glob(f"{name}*") if path.name == name or path.name.startswith(f"{name}-")]
        return [path.name for path in sorted(found, key=lambda path: (path / "root").stat().st_ctime)]

    def _choose(self, name: str, built: Path) -> str:
        digest = measured(built).digest
        variants = self._variants(name)
        for variant in variants:
            if self._content(variant).digest == digest:
                return variant
        return f"{name}-{digest[:8]}" if variants else name

    def _ensure(self, name: str, build: Build) -> None:
        self.shelf.ensure(name, _and_measure(build))

    def _content(self, name: str) -> Content:
        return measured(self.shelf.directory / name)

    def _describe(self, plan: Blueprint, layers: list[str], boot: str) -> Built:
        contents = [self._content(name) for name in layers]
        boot_content = self._content(boot)
        digest = blueprint.revision_digest(
            [content.digest for content in contents], boot_content.digest, plan.kernel_arguments, plan.additions.init
        )
        release = kernel.release_of(self.shelf.root(layers[-2]), plan.kernel)
        packages = contents[-1].packages | {plan.kernel: release}
        manifest = Manifest(
            digest=digest,
            kernel=release,
            kernel_arguments=list(plan.kernel_arguments),
            init=plan.additions.init,
            agent=agent.version(self.project),
            agent_source=layers[0],
            packages=packages,
            files={file.path: hashlib.sha256(file.to_json()).hexdigest()[:12] for file in plan.additions.files},
            users={user.name: user.uid for user in plan.additions.users},
        )
        size = sum(content.size for content in (*contents, boot_content))
        return Built(tuple(layers), boot, self._recipe(plan), size, manifest)

    def _draw(self, spec: ImageSpec) -> Blueprint:
        try:
            return blueprint.draw(spec, self.machine, image.pins(self.project))
        except ValueError as error:
            raise ImageError(f"node image: {error}; correct spec.packages of the image") from error

    def _recipe(self, plan: Blueprint) -> str:
        # with the names of layers as they would be built first: another state of the mirror is no other wish
        return plan.recipe(agent.digest(self.project, plan.base_layer), initramfs.layer_name(plan.kernel_layer))


def _and_measure(build: Build) -> Build:
    """While nobody sees it yet, so that its description is part of it."""

    def both(layer: Path, lock: int) -> None:
        build(layer, lock)
        measured(layer)

    return both


Count = Callable[[str, float], None]
"""Told the phase that begins, and the part of the whole that is done."""


def counted(phases: int, tell: Count) -> Report:
    """A Report that also says how far it is."""
    done = 0

    def report(phase: str, /) -> None:
        nonlocal done
        tell(phase, min(done / phases, 0.99))
        done += 1

    return report
