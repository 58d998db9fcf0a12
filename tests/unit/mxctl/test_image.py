"""mxctl image: build, list, diff, rm, rollback."""

from pathlib import Path
from typing import Any

import pytest

from clip import apt
from clip.builder import Builder
from clip.errors import ImageError
from clip.image import project_dir
from clip.images import Images
from crds.image import Image, ImageSpec
from crds.node import Node
from mxctl import image as verbs
from mxctl.core.session import Session
from store.store import Store
from tests.fakes.workshop import FakeWorkshop
from tests.unit.mxctl.terminal import Terminal


@pytest.fixture
def workshop() -> FakeWorkshop:
    return FakeWorkshop()


@pytest.fixture
def builder(tmp_path: Path, workshop: FakeWorkshop, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setattr(apt, "mirror", lambda: "http://127.0.0.1/debian")
    monkeypatch.setattr(apt, "proxy_options", lambda: ())
    made = Builder(tmp_path / "state", project_dir(), workshop, "x86_64")
    monkeypatch.setattr(verbs, "make_builder", lambda: made)
    return made


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "may_build", lambda: True)


@pytest.fixture
def mx(terminal: Terminal, builder: Builder) -> Terminal:
    """A cluster with an image called numpy."""
    terminal.create(Image.model_validate({"metadata": {"name": "numpy"}, "spec": {"packages": ["curl"]}}))
    return terminal


def change(mx: Terminal, **spec: Any) -> None:
    def edit(image: Image) -> None:
        image.spec = ImageSpec.model_validate(image.spec.to_data() | spec)

    async def act(store: Store) -> None:
        await store.change(Image, "numpy", None, edit)

    mx.do(act)


def two_revisions(mx: Terminal) -> None:
    assert mx.run("image", "build", "numpy").code == 0
    change(mx, files=[{"path": "/etc/motd", "content": "hi"}], kernelArguments=["quiet"])
    assert mx.run("image", "build", "numpy").code == 0


def test_a_build_says_what_came_out_and_the_next_that_nothing_changed(mx: Terminal) -> None:
    first = mx.run("image", "build", "numpy")
    assert first.code == 0 and first.out.startswith("image/numpy built: numpy:1, digest ")
    assert "image numpy: unpacking" in first.err
    again = mx.run("image", "build", "numpy")
    assert again.out == first.out.replace(" built: ", " unchanged: ") and again.err == ""
    fresh = mx.run("image", "build", "numpy", "--refresh")
    assert fresh.out == again.out, "rebuilding without a change: the same digest"


def test_newer_packages_make_a_new_revision(mx: Terminal, workshop: FakeWorkshop) -> None:
    mx.run("image", "build", "numpy")
    workshop.packages["curl"] = "8.2"
    assert "image/numpy built: numpy:2, " in mx.run("image", "build", "numpy", "--refresh").out
    assert "package curl 8.1 -> 8.2" in mx.run("image", "diff", "numpy:1").out.splitlines()


@pytest.mark.parametrize(
    ("spec", "words"),
    [({"packages": ["no-such"]}, "there is no package no-such"), ({"kernel": "curl"}, "curl brings no kernel")],
)
def test_a_failure_is_one_line_and_stands_in_the_condition(mx: Terminal, spec: dict[str, Any], words: str) -> None:
    change(mx, **spec)
    said = mx.run("image", "build", "numpy")
    assert said.code == 1 and said.out == ""
    [line] = [line for line in said.err.splitlines() if line.startswith("Error: ")]
    assert line.startswith("Error: image/numpy: node image: ") and words in line
    assert words in mx.run("describe", "image", "numpy").out


def test_list_shows_revisions_and_who_runs_them(mx: Terminal) -> None:
    assert mx.run("image", "list").err == "image/numpy has no revision yet; build it with mxctl image build numpy\n"
    two_revisions(mx)

    async def act(store: Store) -> None:
        image = await store.get(Image, "numpy")
        node = await store.create(Node.model_validate({"metadata": {"name": "n1"}}))
        node.status.facts.image = image.status.revisions[0].digest
        await store.update_status(node)

    mx.do(act)
    lines = [line.split() for line in mx.run("image", "list", "numpy").out.splitlines()]
    assert lines[0] == verbs.COLUMNS
    assert [(line[1], line[-2], line[-1]) for line in lines[1:]] == [("2*", "-", "-"), ("1", "-", "n1")]
    refused = mx.run("image", "rm", "numpy:1")
    assert refused.code == 1 and "revision 1 is in use by n1" in refused.err


def test_diff_says_what_a_node_would_notice(mx: Terminal) -> None:
    two_revisions(mx)
    assert mx.run("image", "diff", "numpy:1", "numpy:2").out == "kernel arguments none -> quiet\nfile /etc/motd added\n"
    assert mx.run("image", "diff", "numpy:2", "numpy:1").out == "kernel arguments quiet -> none\nfile /etc/motd removed\n"
    assert mx.run("image", "diff", "numpy:2").out == "numpy:2 and numpy are the same\n"
    assert "has no revision 7; there are: 1, 2" in mx.run("image", "diff", "numpy:7").err
    assert "write IMAGE:NUMBER" in mx.run("image", "diff", "numpy:x").err


def test_rollback_is_a_new_revision_and_the_spec_comes_back_by_a_build(mx: Terminal) -> None:
    two_revisions(mx)
    assert mx.run("image", "rollback", "numpy").out == "image/numpy rolled back: numpy:3 has the content of numpy:1\n"
    assert mx.run("image", "diff", "numpy:1", "numpy").out == "numpy:1 and numpy are the same\n"
    assert "numpy:4, " in mx.run("image", "build", "numpy").out
    assert mx.run("image", "diff", "numpy:2", "numpy:4").out == "numpy:2 and numpy:4 are the same\n"
    assert "already" in mx.run("image", "rollback", "numpy", "--to", "2").err


def test_rm_removes_the_revision_and_the_layers_only_it_had(mx: Terminal, builder: Builder) -> None:
    two_revisions(mx)
    change(mx, files=[])
    mx.run("image", "build", "numpy")
    said = mx.run("image", "rm", "numpy:2")
    assert said.out.startswith("image/numpy:2 removed with files-")
    assert {path.name.split("-")[0] for path in builder.shelf.directory.glob("[!.]*")} == {"agent", "kernel", "base", "boot"}
    assert mx.run("image", "rm", "numpy:3").err.startswith("Error: image/numpy: revision 3 is the current one")
    assert mx.run("image", "rm", "numpy").code == 1


def test_rm_puts_back_what_a_rollout_begins_with_at_that_moment(mx: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    two_revisions(mx)
    before = mx.run("image", "list").out
    looks = []

    async def users(_: Session) -> object:
        looks.append(1)
        node = Node.model_validate({"metadata": {"name": "n1"}})
        node.status.facts.image = first
        return ([] if len(looks) == 1 else [node]), []

    first = before.splitlines()[-1].split()[2]
    monkeypatch.setattr(verbs, "_users", users)
    said = mx.run("image", "rm", "numpy:1")
    assert said.code == 1 and "revision 1 is in use by n1;" in said.err and said.out == ""
    assert mx.run("image", "list").out == before
    assert mx.run("image", "diff", "numpy:1", "numpy:2").code == 0, "what is in it is known again, too"


def test_who_cannot_build_sees_how_mx_clip_does_it(mx: Terminal, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "may_build", lambda: False)

    async def clip(store: Store) -> None:
        await Images(store, builder, "images-head").build("numpy")

    said = mx.run("image", "build", "numpy", meanwhile=clip)
    assert said.code == 0 and said.out.startswith("image/numpy built: numpy:1, digest ")
    assert mx.run("image", "build", "numpy").out == said.out, "it is built already"
    change(mx, packages=["no-such"])
    nobody = mx.run("image", "build", "numpy", "--timeout", "0.1")
    assert nobody.code == 1 and "was not built within 0.1 s: does mx-clip run on the head?" in nobody.err

    async def fail(store: Store) -> None:
        with pytest.raises(ImageError):
            await clip(store)

    failed = mx.run("image", "build", "numpy", meanwhile=fail)
    assert failed.code == 1 and "Error: image/numpy: node image: there is no package no-such" in failed.err
    assert "only root on the head" in mx.run("image", "build", "numpy", "--refresh").err
