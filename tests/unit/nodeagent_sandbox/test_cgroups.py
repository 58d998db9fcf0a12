"""Control groups on made-up trees: v1-hybrid and v2."""

import os
from pathlib import Path

import pytest

from nodeagent.cgroups import Cgroups
from nodeagent.engine import Copy
from nodeagent.errors import EngineFailed

COPY = Copy("default", "w", "uid", 3)
CORES = float(len(os.sched_getaffinity(0)))
GIB = 2**30


def fill(directory: Path, **files: str) -> None:
    """Writes files; "__" in a name stands for a dot."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    fill(tmp_path / "proc", meminfo=f"MemTotal: {8 * 2**20} kB\nMemAvailable: {6 * 2**20} kB\n")
    fill(tmp_path / "proc/pressure", memory="some avg10=1.50 avg60=0 avg300=0 total=1\nfull avg10=9.0\n")
    return tmp_path / "proc"


@pytest.fixture
def hybrid(tmp_path: Path, proc: Path) -> Cgroups:
    root = tmp_path / "v1"
    for name in ("cpu", "cpuacct", "memory", "freezer", "unified"):
        fill(root / name, cgroup__procs="")
    for directory in (root / "unified", root / "unified/jobs"):
        fill(directory, cgroup__controllers="", cgroup__subtree_control="")
    fill(root / "memory", memory__limit_in_bytes=str(9223372036854771712), memory__stat="rss 1\ntotal_rss 500\ntotal_shmem 20\n")
    return Cgroups(root, proc)


@pytest.fixture
def v2(tmp_path: Path, proc: Path) -> Cgroups:
    root = tmp_path / "v2"
    fill(root, cgroup__controllers="cpu memory io", cgroup__subtree_control="", cgroup__procs="")
    fill(root / "jobs", cgroup__controllers="cpu", cgroup__subtree_control="")
    fill(root, memory__pressure="some avg10=12.25 avg60=0 avg300=0 total=1\n")
    return Cgroups(root, proc)


def test_detects_what_is_mounted(hybrid: Cgroups, v2: Cgroups, tmp_path: Path) -> None:
    assert list(hybrid.hierarchies) == ["cpu", "cpuacct", "memory", "freezer", "unified"]
    assert list(v2.hierarchies) == ["unified"]
    with pytest.raises(EngineFailed, match="no cgroup hierarchy"):
        Cgroups(tmp_path / "proc")


def test_creates_groups_everywhere(hybrid: Cgroups) -> None:
    group = hybrid.group(COPY)
    group.create()
    group.create()
    assert [path.relative_to(path.parents[2]) for path in group.everywhere] == [
        Path(name, "jobs/default_w_3") for name in ("cpu", "cpuacct", "memory", "freezer", "unified")
    ]
    assert all(path.is_dir() for path in group.everywhere)
    assert hybrid.names() == {"default_w_3"}


def test_restore_runs_outside_the_cpu_group(hybrid: Cgroups, v2: Cgroups) -> None:
    assert [path.parts[-3] for path in hybrid.group(COPY).throttled] == ["cpu"]
    assert "cpu" not in [path.parts[-3] for path in hybrid.group(COPY).restoring]
    assert v2.group(COPY).throttled == []
    assert v2.group(COPY).restoring == v2.group(COPY).everywhere


def test_v2_switches_controllers_on(v2: Cgroups) -> None:
    v2.group(COPY).create()
    root = v2.hierarchies["unified"]
    assert (root / "cgroup.subtree_control").read_text() == "+memory", "the last one written: one write each, as a kernel wants it"
    assert (root / "jobs/cgroup.subtree_control").read_text() == "+cpu"


@pytest.mark.parametrize(("quota", "cores"), [("-1", CORES), ("35000", 0.35), ("90000000", CORES)])
def test_capacity_v1(hybrid: Cgroups, quota: str, cores: float) -> None:
    fill(hybrid.hierarchies["cpu"] / "jobs", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert hybrid.capacity().cpu == pytest.approx(cores)
    assert hybrid.capacity().memory == 8 * GIB
    fill(hybrid.hierarchies["memory"], memory__limit_in_bytes=str(GIB // 2))
    assert hybrid.capacity().memory == GIB // 2


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", CORES), ("20000 100000", 0.2)])
def test_capacity_v2(v2: Cgroups, quota: str, cores: float) -> None:
    fill(v2.hierarchies["unified"] / "jobs", cpu__max=quota)
    fill(v2.hierarchies["unified"], memory__max="max")
    assert v2.capacity().cpu == pytest.approx(cores)
    assert v2.capacity().memory == 8 * GIB
    fill(v2.hierarchies["unified"], memory__max=str(GIB))
    assert v2.capacity().memory == GIB


def test_use_of_a_job(hybrid: Cgroups, v2: Cgroups) -> None:
    old, new = hybrid.group(COPY), v2.group(COPY)
    fill(old.paths["cpuacct"], cpuacct__usage="2500000000")
    fill(old.paths["memory"], memory__stat="cache 5\nrss 70\nshmem 3\ntotal_rss 100\ntotal_shmem 7\ntotal_inactive_file 9\n")
    fill(old.paths["freezer"], cgroup__procs="12\n13\n")
    fill(new.paths["unified"], cpu__stat="usage_usec 1500000\nuser_usec 1\n", memory__stat="anon 40\nfile 99\nshmem 2\n")
    assert (old.cpu_seconds(), old.memory(), old.pids()) == (2.5, 107, [12, 13])
    assert (new.cpu_seconds(), new.memory()) == (1.5, 42)


def test_memory_without_controller_is_counted_from_proc(v2: Cgroups, proc: Path) -> None:
    group = v2.group(COPY)
    fill(group.paths["unified"], cgroup__procs="7\n8\n")
    fill(proc / "7", status="Name: x\nRssAnon:\t10 kB\nRssFile:\t99 kB\nRssShmem:\t2 kB\n")
    assert group.memory() == 12 * 1024


def test_memory_of_the_node(hybrid: Cgroups, v2: Cgroups) -> None:
    assert hybrid.memory_used() == 520, "a node in a container: its own group counts"
    assert v2.memory_used() == 2 * GIB, "without a memory group the machine counts"


def test_pressure(hybrid: Cgroups, v2: Cgroups, proc: Path) -> None:
    assert v2.memory_pressure() == 12.25, "the node's own"
    assert hybrid.memory_pressure() == 1.5, "the machine's, where the group has none"
    (proc / "pressure/memory").unlink()
    assert hybrid.memory_pressure() == 0.0


async def test_remove_empties_and_removes(v2: Cgroups) -> None:
    group = v2.group(COPY)
    group.create()
    with pytest.raises(FileNotFoundError):
        group.pids()
    fill(group.paths["unified"], cgroup__procs="")
    (group.paths["unified"] / "cgroup.procs").unlink()  # a kernel's files do not keep a directory from being removed
    await group.remove()
    await group.remove()
    assert v2.names() == set()


async def test_group_that_stays_in_use_is_an_error(v2: Cgroups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nodeagent.cgroups.REMOVAL", 0.05)
    group = v2.group(COPY)
    fill(group.paths["unified"], cgroup__procs="")
    with pytest.raises(EngineFailed, match="still in use"):
        await group.remove()
