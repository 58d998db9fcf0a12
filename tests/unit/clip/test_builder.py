"""Building a revision: what is there is used, what fails leaves nothing, the same content has the same digest."""

import errno
from collections.abc import Callable
from typing import Any

import pytest

from clip import kernel
from clip.builder import Builder, Built, counted
from clip.errors import ImageError
from crds.image import ImageSpec
from crds.manifest import differences
from tests.fakes.workshop import RELEASE, Crash, FakeWorkshop

Names = Callable[[], set[str]]
CLOUD = "linux-image-cloud-amd64"


def spec(**fields: Any) -> ImageSpec:
    return ImageSpec.model_validate({"kernel": CLOUD} | fields)


def kinds(built: Built) -> list[str]:
    return [name.split("-")[0] for name in (*built.layers, built.boot)]


def test_a_revision_is_agent_over_files_over_kernel_over_debian(builder: Builder) -> None:
    built = builder.build(spec(files=[{"path": "/etc/motd", "content": "hi"}]))
    assert kinds(built) == ["agent", "files", "kernel", "base", "boot"]
    assert kinds(builder.build(spec())) == ["agent", "kernel", "base", "boot"], "nothing to add needs no layer"
    assert built.manifest.kernel == RELEASE and built.manifest.packages[CLOUD] == RELEASE
    assert (builder.shelf.root(built.boot) / "vmlinuz").read_text() == "kernel"
    kept = {path.name for path in builder.shelf.root(built.layers[2]).rglob("*") if path.is_file()}
    assert "busybox" in kept and "ls" not in kept, "only what a kernel needs is in its layer"


def test_the_kernel_layer_has_the_links_that_load_modules(builder: Builder) -> None:
    built = builder.build(spec())
    assert (builder.shelf.root(built.layers[-2]) / "usr/sbin/modprobe").read_text() == "kmod"


def test_what_is_there_is_not_built_again(builder: Builder, workshop: FakeWorkshop) -> None:
    first = builder.build(spec())
    workshop.built.clear()
    assert builder.build(spec(kernelArguments=["quiet"])).layers == first.layers
    builder.build(spec(files=[{"path": "/etc/motd"}]))
    assert workshop.built == []
    assert builder.build(spec(packages=["curl"])).layers[-1] != first.layers[-1]
    assert [name.split("-")[1] for name in workshop.built] == ["base"], "another set of packages needs no other kernel"


def test_building_anew_without_a_change_gives_the_same_digest(builder: Builder, on_shelf: Names) -> None:
    first = builder.build(spec(packages=["curl"]))
    before = on_shelf()
    again = builder.build(spec(packages=["curl"]), anew=True)
    assert again == first
    assert on_shelf() == before


def test_building_anew_takes_what_the_mirror_has_by_then(builder: Builder, workshop: FakeWorkshop) -> None:
    first = builder.build(spec(packages=["curl"]))
    workshop.packages["curl"] = "8.2"
    second = builder.build(spec(packages=["curl"]), anew=True)
    assert (
        differences(first.manifest, second.manifest)
        == [
            "package curl 8.1 -> 8.2",
        ]
        or differences(first.manifest, second.manifest)[-1] == "package curl 8.1 -> 8.2"
    )
    assert second.recipe == first.recipe, "the wish is the same"
    assert second.layers[-1].startswith(f"{first.layers[-1]}-"), "the older one stays as it is"
    assert builder.shelf.has(first.layers[-1])
    assert builder.build(spec(packages=["curl"])).layers == second.layers, "from now on the newer one is used"


@pytest.mark.parametrize(
    "change",
    [
        {"kernelArguments": ["quiet"]},
        {"files": [{"path": "/x"}]},
        {"init": "systemd"},
        {"packages": ["curl"]},
        {"kernel": "linux-image-amd64"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_a_node_would_notice_changes_recipe_and_digest(builder: Builder, change: dict[str, Any]) -> None:
    plain, other = builder.build(spec()), builder.build(spec(**change))
    assert plain.recipe == builder.recipe(spec()) != other.recipe == builder.recipe(spec(**change))
    assert plain.manifest.digest != other.manifest.digest
    assert differences(plain.manifest, other.manifest)


def test_the_order_of_packages_and_files_is_no_change(builder: Builder) -> None:
    files = [{"path": "/etc/a"}, {"path": "/etc/b"}]
    one, other = spec(packages=["curl", "bash"], files=files), spec(packages=["bash", "curl", "bash"], files=files[::-1])
    assert builder.recipe(one) == builder.recipe(other)


def fail_with(*words: str) -> Callable[[FakeWorkshop], None]:
    def fail(workshop: FakeWorkshop) -> None:
        workshop.say, workshop.code = [*words], 100

    return fail


def fill(workshop: FakeWorkshop) -> None:
    workshop.full = True


@pytest.mark.parametrize(
    ("trouble", "reason", "words"),
    [
        (fail_with("E: Unable to locate package nosuch"), "UnknownPackage", "no package nosuch; correct spec.packages"),
        (fail_with("Err:1 http://m trixie InRelease", "  Could not resolve 'm'"), "MirrorAway", "mirror does not answer"),
        (fail_with("E: something else", "", "E: it broke"), "BuildFailed", "ended with 100: E: something else | E: it broke"),
        (fill, "DiskFull", "no space is left"),
    ],
    ids=["package", "mirror", "other", "full"],
)
def test_a_failed_build_says_why_in_one_line_and_leaves_nothing(
    builder: Builder, workshop: FakeWorkshop, on_shelf: Names, trouble: Callable[[FakeWorkshop], None], reason: str, words: str
) -> None:
    trouble(workshop)
    with pytest.raises(ImageError) as caught:
        builder.build(spec(packages=["nosuch"]))
    assert caught.value.reason == reason
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert on_shelf() == {".lock"}


def test_a_package_without_a_kernel_is_told(builder: Builder, on_shelf: Names) -> None:
    with pytest.raises(ImageError, match="package curl brings no kernel; name one") as caught:
        builder.build(spec(kernel="curl"))
    assert caught.value.reason == "NoKernel"
    assert on_shelf() == {".lock"}


def test_a_disk_that_fills_up_while_we_write_is_told(builder: Builder, on_shelf: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/x")

    monkeypatch.setattr(kernel, "release_of", full)
    with pytest.raises(ImageError, match="no space is left") as caught:
        builder.build(spec())
    assert caught.value.reason == "DiskFull"
    assert on_shelf() == {".lock"}


@pytest.mark.parametrize("phase", ["running apt-get update", "unpacking"])
def test_a_builder_that_dies_leaves_nothing_half_done(
    builder: Builder, workshop: FakeWorkshop, on_shelf: Names, phase: str
) -> None:
    workshop.crash_at = phase
    with pytest.raises(Crash):
        builder.build(spec())
    assert on_shelf() == {".lock"}
    workshop.crash_at = ""
    assert kinds(builder.build(spec())) == ["agent", "kernel", "base", "boot"]


def test_a_second_attempt_goes_on_with_what_is_complete(builder: Builder, workshop: FakeWorkshop) -> None:
    with pytest.raises(ImageError, match="no package no-such"):
        builder.build(spec(packages=["no-such"]))
    workshop.built.clear()
    builder.build(spec())
    assert [name.split("-")[1] for name in workshop.built] == ["base"], "the kernel was there already"


def test_progress_is_told_in_parts_of_the_whole(builder: Builder) -> None:
    told: list[tuple[str, float]] = []
    builder.build(spec(), counted(builder.phases(spec()), lambda phase, fraction: told.append((phase, fraction))))
    fractions = [fraction for _, fraction in told]
    assert fractions == sorted(fractions) and fractions[0] == 0.0 and 0.4 < fractions[-1] < 1
    assert "unpacking" in [phase for phase, _ in told]
    assert builder.phases(spec()) < builder.phases(spec(), anew=True)


def test_the_trees_of_a_build_tell_nothing_of_the_building_machine(builder: Builder) -> None:
    built = builder.build(spec())
    base_root = builder.shelf.root(built.layers[-1])
    assert not (base_root / "etc/apt/sources.list").exists()


def test_a_head_without_mmdebstrap_still_uses_what_lies_on_the_shelf(
    builder: Builder, workshop: FakeWorkshop, on_shelf: Names
) -> None:
    built = builder.build(spec())
    workshop.absent = True
    assert builder.build(spec()) == built
    before = on_shelf()
    with pytest.raises(ImageError) as caught:
        builder.build(spec(packages=["curl"]))
    assert caught.value.reason == "NoBuilder" and on_shelf() == before
