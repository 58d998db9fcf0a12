"""The recipe of the base layer: what is in it decides its name, and nothing else does."""

from dataclasses import replace

import pytest

from clip import recipe

CONSTRAINTS = "# pinned\n" + "".join(f"{name}==1.{number}\n" for number, name in enumerate(recipe.REQUIREMENTS)) + "pytest==9.0\n"
PLAN = recipe.Recipe("x86_64", recipe.select_pins(CONSTRAINTS))


def test_digest_is_stable_and_follows_the_content() -> None:
    assert PLAN.digest == recipe.Recipe("x86_64", recipe.select_pins(CONSTRAINTS)).digest
    assert len(PLAN.digest) == 12
    assert PLAN.digest != replace(PLAN, machine="aarch64").digest
    assert PLAN.digest != replace(PLAN, pins=(*PLAN.pins[:-1], "typing-inspection==2")).digest


def test_digest_does_not_follow_pins_of_tools_that_are_not_in_the_image() -> None:
    assert recipe.select_pins(CONSTRAINTS.replace("pytest==9.0", "pytest==9.1")) == PLAN.pins


def test_pins_are_found_however_their_names_are_spelt() -> None:
    spelt = CONSTRAINTS.replace("pydantic-core", "pydantic_core").replace("pyyaml", "PyYAML")
    assert recipe.select_pins(spelt) == PLAN.pins


def test_a_missing_pin_is_named() -> None:
    with pytest.raises(ValueError, match="no line 'grpcio==VERSION'"):
        recipe.select_pins(CONSTRAINTS.replace("grpcio==", "grpcio-tools=="))


def test_only_what_must_be_newer_comes_from_the_newer_suite() -> None:
    everything, listed = recipe.preferences().split("\n\n")
    assert "Package: *\n" in everything
    assert "Pin-Priority: 100" in everything
    assert {"criu", "etcd-server", "libnl-3-200"} <= set(listed.splitlines()[0].removeprefix("Package: ").split())
    assert "Pin-Priority: 600" in listed


def test_the_command_takes_mirror_and_proxy_from_outside() -> None:
    command = recipe.mmdebstrap("/to/root", "http://127.0.0.1/debian", "/to/preferences", ('Acquire::http::Proxy "http://p:1";',))
    assert command[-4:] == [
        "trixie",
        "/to/root",
        "deb http://127.0.0.1/debian trixie main",
        "deb [check-valid-until=no] http://127.0.0.1/debian sid main",
    ]
    assert '--aptopt=Acquire::http::Proxy "http://p:1";' in command


def test_wheels_are_for_the_image_not_for_the_python_that_runs_pip() -> None:
    arguments = recipe.pip_arguments("/target", "aarch64", ("a==1",))
    assert "--python-version=3.13" in arguments
    assert "--platform=manylinux_2_17_aarch64" in arguments
    assert arguments[-2:] == ["--target=/target", "a==1"]


@pytest.mark.parametrize(
    ("output", "version"),
    [("Version: 4.2.1\nGitID: x", (4, 2, 1)), ("etcd Version: 3.5.30\nGo Version: go1.26", (3, 5, 30)), ("none", ())],
)
def test_version_of(output: str, version: tuple[int, ...]) -> None:
    assert recipe.version_of(output) == version


def test_packages_beside_the_usual_make_another_layer() -> None:
    extra = recipe.check_packages(["nodejs", "gcc", "python3", " gcc", ""])
    assert extra == ("gcc", "nodejs"), "sorted, each once, without what is there anyway"
    richer = recipe.Recipe("x86_64", PLAN.pins, extra)
    assert richer.digest != PLAN.digest and "extra: gcc nodejs\n" in richer.text()
    assert recipe.Recipe("x86_64", PLAN.pins, recipe.check_packages(["python3"])).digest == PLAN.digest
    [include] = [word for word in recipe.mmdebstrap("/r", "m", "p", (), extra) if word.startswith("--include=")]
    assert include.endswith(",gcc,nodejs")


@pytest.mark.parametrize("name", ["GCC", "a b", "-x", "x;y"])
def test_what_is_no_package_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a Debian package"):
        recipe.check_packages([name])
