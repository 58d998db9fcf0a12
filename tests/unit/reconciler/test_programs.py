"""A job moves only to nodes that have the files it has mapped."""

from collections.abc import Sequence

import pytest

from crds import keys
from crds.job import Job
from crds.migration import MigrationPhase
from crds.programs import NodeFiles, WantedFiles
from crds.report import JobReport
from reconciler.controllers.destinations import ask_around
from reconciler.controllers.programs import compare
from reconciler.world import World

from .house import House

LIBC, PYTHON = "/usr/lib/libc.so.6", "/usr/bin/python3"
SAME = {LIBC: "aa", PYTHON: "bb"}


async def mixed(house: House, roots: Sequence[str] = ("v1", "n2")) -> None:
    """A job on n1, and nodes that run different images."""
    for name, root in zip(house.agents, roots, strict=True):
        house.agents[name].beat(root=root)
    await house.run("w", on="n1")
    await house.settle()


async def mapped(house: House, node: str = "n1", *paths: str) -> None:
    """What the job's node reports."""
    kv = await house.kv.get(keys.report(node, "default", "w"))
    assert kv is not None
    report = JobReport.model_validate_json(kv.value).model_copy(update={"files": sorted(paths or SAME)})
    await house.put(kv.key, report.to_json())
    await house.settle()


async def has(house: House, node: str, digests: dict[str, str], boot: str = "boot-1") -> None:
    await house.put(keys.files(node), NodeFiles(boot_id=boot, digests=digests).to_json())
    await house.settle()


async def wanted(house: House) -> list[str] | None:
    kv = await house.kv.get(keys.FILES)
    return WantedFiles.model_validate_json(kv.value).paths if kv else None


async def test_where_all_nodes_have_the_same_files_nobody_is_asked() -> None:
    async with House("n1", "n2") as house:
        await mixed(house, ("v1", "v1"))
        assert await wanted(house) is None
        await house.migrate("w", "n2")
        await house.settle()
        assert (await house.job("w")).node == "n2"


async def test_agents_are_asked_while_nodes_differ() -> None:
    async with House("n1", "n2") as house:
        await mixed(house)
        assert await wanted(house) == []  # tell what your jobs have mapped
        await mapped(house)
        assert await wanted(house) == sorted(SAME)
        house.agents["n2"].beat(root="v1")
        await house.settle()
        assert await wanted(house) is None


async def test_a_job_goes_where_its_files_are_the_same() -> None:
    async with House("n1", "n2") as house:
        await mixed(house)
        await mapped(house)
        for node in ("n1", "n2"):
            await has(house, node, SAME)
        await house.migrate("w", "n2")
        await house.settle()
        assert (await house.job("w")).node == "n2"


@pytest.mark.parametrize(
    ("there", "why"),
    [({**SAME, PYTHON: "cc"}, f"file {PYTHON} differs on n2"), ({**SAME, LIBC: ""}, f"file {LIBC} is missing on n2")],
)
async def test_where_a_file_differs_it_does_not_go(there: dict[str, str], why: str) -> None:
    async with House("n1", "n2") as house:
        await mixed(house)
        await mapped(house)
        await has(house, "n1", SAME)
        await has(house, "n2", there)
        job = house.world.find(Job, "default/w")
        assert job is not None
        assert ask_around(house.world, job, house.clock.now())["n2"] == why
        await house.migrate("w", "n2")
        await house.settle()
        migration = await house.migration()
        assert migration.phase == MigrationPhase.FAILED and why in migration.message
        assert (await house.job("w")).node == "n1"


async def test_a_move_waits_until_the_files_are_compared() -> None:
    async with House("n1", "n2") as house:
        await mixed(house)
        await house.migrate("w", "n2")
        await house.settle()
        assert (await house.migration()).message == "its files have not been compared with those of node/n2 yet"
        await mapped(house)
        await has(house, "n1", SAME)
        await has(house, "n2", SAME, boot="boot-0")  # before it was booted again, maybe with others
        assert (await house.migration()).phase == MigrationPhase.PENDING
        await has(house, "n2", SAME)
        await house.advance(2)
        assert (await house.job("w")).node == "n2"


async def test_nodes_of_the_same_image_are_as_good_as_each_other() -> None:
    async with House("n1", "n2", "n3") as house:
        await mixed(house, ("v1", "v2", "v2"))
        await mapped(house)
        await has(house, "n1", SAME)
        await has(house, "n3", SAME)
        assert compare(house.world, "default/w", "n1").unfit == {}


def test_nothing_is_known_of_a_cluster_without_nodes() -> None:
    assert compare(World(), "default/w", "n1").unfit == {}
