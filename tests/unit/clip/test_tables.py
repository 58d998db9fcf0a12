"""What each node boots: what it is assigned, else its image's current revision, else what mx-clip was started with."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from clip.service.config import Config
from clip.service.tables import revision_of
from clip.table import Revision
from crds import image as image_kind
from crds.image import Image
from crds.node import Node

CONFIG = Config("10.77.0.1", "br0", "10.77.0.1:2379", Path("/c"), Path("/i"), Path("/s"), arguments="console=ttyS0")
SPARE = Revision("d0", ("agent-0", "base-0"), "boot-0")


def revision(number: int, digest: str, **more: Any) -> image_kind.Revision:
    fields = {"layers": [f"agent-{digest}", "base-1"], "boot": f"boot-{digest}", "kernel": "6.12", "recipe": "r"} | more
    return image_kind.Revision.model_validate({"number": number, "digest": digest, "built": "2026-01-01T00:00:00Z"} | fields)


def image(*revisions: image_kind.Revision) -> dict[str, Image]:
    found = Image.model_validate({"metadata": {"name": "numpy"}})
    found.status.revisions, found.status.current = list(revisions), revisions[-1].number if revisions else None
    return {"numpy": found}


def node(**status: Any) -> Node:
    return Node.model_validate({"metadata": {"name": "n1"}, "spec": {"image": "numpy"}, "status": status})


def assigned(digest: str) -> Node:
    return node(assigned={"image": "numpy", "revision": digest, "kernelArguments": ["quiet"]})


def test_what_is_assigned_counts_whatever_is_newest() -> None:
    images = image(revision(1, "aa", kernelArguments=["a=1"], init="systemd"), revision(2, "bb"))
    who = assigned("aa")
    assert who.status.assigned is not None
    words = f"console=ttyS0 a=1 mx.init=systemd systemd.condition_needs_update=no quiet mx.assigned={who.status.assigned.digest}"
    assert revision_of(who, images, CONFIG) == Revision("aa", ("agent-aa", "base-1"), "boot-aa", words)


def test_a_new_node_boots_the_current_one() -> None:
    images = image(revision(1, "aa"), revision(2, "bb"))
    assert revision_of(node(), images, CONFIG) == Revision("bb", ("agent-bb", "base-1"), "boot-bb", "console=ttyS0")


def test_an_image_that_was_never_built_leaves_what_mx_clip_was_started_with() -> None:
    spare = replace(CONFIG, revision=SPARE)
    assert revision_of(node(), image(), spare) == replace(SPARE, arguments="console=ttyS0")
    assert revision_of(node(), {}, spare) == replace(SPARE, arguments="console=ttyS0")


def test_why_there_is_nothing_to_boot_is_said() -> None:
    assert revision_of(node(), image(), CONFIG) == "image numpy was not built yet: see mxctl get images"
    nothing = Node.model_validate({"metadata": {"name": "n1"}})
    assert revision_of(nothing, {}, CONFIG) == "it names no image: set spec.image"
    gone = "image/numpy has no revision cc, which it is assigned: see mxctl image list"
    assert revision_of(assigned("cc"), image(revision(1, "aa")), replace(CONFIG, revision=SPARE)) == gone
