"""Control groups of both kinds of machines, on trees of plain files."""

from pathlib import Path

import pytest

from lab import cgroups
from lab.cgroups import Groups, Hierarchy, detect
from lab.errors import LabError

HYBRID = """\
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
32 30 0:28 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw,relatime shared:7 - cgroup cgroup rw,memory
34 30 0:30 / /sys/fs/cgroup/devices rw,relatime - cgroup cgroup rw,devices
35 30 0:31 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
36 30 0:32 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
37 30 0:33 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
JOINT = """\
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
35 30 0:31 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
"""
PURE = "30 25 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"


def test_hybrid_machine() -> None:
    found = {hierarchy.name: str(hierarchy.mount) for hierarchy in detect(HYBRID)}
    assert found == {name: f"/sys/fs/cgroup/{name}" for name in ("cpu", "cpuacct", "memory", "freezer", "unified")}
    assert [hierarchy.name for hierarchy in detect(HYBRID) if hierarchy.v2] == ["unified"]


def test_controllers_that_share_a_hierarchy_keep_their_names_on_the_node() -> None:
    groups = Groups("t", "n1", detect(JOINT))
    joint = Path("/sys/fs/cgroup/cpu,cpuacct/mx/t/n1")
    assert (joint, "cpu") in groups.views
    assert (joint, "cpuacct") in groups.views
    assert groups.directories.count(joint) == 1


def test_pure_v2_machine() -> None:
    groups = Groups("t", "n1", detect(PURE))
    assert groups.views == ((Path("/sys/fs/cgroup/mx/t/n1"), ""),)
    assert groups.entrances == (Path("/sys/fs/cgroup/mx/t/n1/system/cgroup.procs"),)


@pytest.mark.parametrize("mountinfo", ["", HYBRID.replace("rw,memory", "rw,hugetlb")])
def test_a_machine_that_lacks_something(mountinfo: str) -> None:
    with pytest.raises(LabError, match="no cgroup controller"):
        detect(mountinfo)


def test_all_labs_together_go_before_what_else_runs() -> None:
    groups = [Hierarchy("cpu", Path("/m"), False), Hierarchy("memory", Path("/m"), False), Hierarchy("unified", Path("/m"), True)]
    assert [cgroups.weight(group) for group in groups] == [[(Path("/m/mx/cpu.shares"), "4096")], [], []]
    assert cgroups.weight(Hierarchy("", Path("/m"), True)) == [(Path("/m/mx/cpu.weight"), "400")]


def test_limits_v1() -> None:
    def written(name: str) -> list[tuple[str, str]]:
        return [(str(path), value) for path, value in cgroups.limits(Hierarchy(name, Path("/m"), False), Path("/g"), 0.35, 2**29)]

    assert written("cpu") == [("/g/jobs/cpu.cfs_period_us", "100000"), ("/g/jobs/cpu.cfs_quota_us", "35000")]
    assert written("memory") == [("/g/memory.limit_in_bytes", str(2**29))]
    assert written("cpuacct") == written("freezer") == []
    assert cgroups.limits(Hierarchy("cpu", Path("/m"), False), Path("/g"), None, None) == []


def fake_v2(root: Path) -> Hierarchy:
    """What the kernel would put there when the groups are made."""
    for group in ("", "mx", "mx/t", "mx/t/n1", "mx/t/n1/jobs"):
        (root / group).mkdir(exist_ok=True)
        (root / group / "cgroup.subtree_control").write_text("cpu memory pids\n" if group == "" else "\n")
        (root / group / "cgroup.procs").write_text("")
    return Hierarchy("", root, True)


def test_pure_v2_hands_controllers_down_to_the_node_but_not_into_its_groups(tmp_path: Path) -> None:
    Groups("t", "n1", [fake_v2(tmp_path)]).create(0.35, 2**29)
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu memory pids\n"  # had them: left alone
    for group in ("mx", "mx/t", "mx/t/n1"):
        assert (tmp_path / group / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (tmp_path / "mx/t/n1/jobs/cgroup.subtree_control").read_text() == "\n"
    assert (tmp_path / "mx/t/n1/jobs/cpu.max").read_text() == "35000 100000"
    assert (tmp_path / "mx/t/n1/memory.max").read_text() == str(2**29)
    assert (tmp_path / "mx/t/n1/system").is_dir()


def test_processes_of_all_groups_in_all_hierarchies(tmp_path: Path) -> None:
    hierarchies = [Hierarchy(name, tmp_path / name, False) for name in ("cpu", "memory")]
    for path, members in (("cpu/mx/t/n1/jobs/a/deep", "11\n12\n"), ("memory/mx/t/n1/system", "11\n13\n"), ("cpu/mx/u/n1", "99\n")):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "cgroup.procs").write_text(members)
    assert Groups("t", "", hierarchies).processes() == {11, 12, 13}
    assert Groups("t", "n2", hierarchies).processes() == set()


def test_remove_takes_the_lab_and_leaves_its_neighbour(tmp_path: Path) -> None:
    hierarchies = [Hierarchy("cpu", tmp_path, False)]
    for path in ("mx/t/n1/jobs/a", "mx/t/head/system", "mx/u/n1"):
        (tmp_path / path).mkdir(parents=True)
    Groups("t", "n1", hierarchies).remove()
    assert (tmp_path / "mx/t/head").is_dir()
    assert not (tmp_path / "mx/t/n1").exists()
    Groups("t", "", hierarchies).remove()
    assert [path.name for path in (tmp_path / "mx").iterdir()] == ["u"]
    Groups("u", "", hierarchies).remove()
    assert not (tmp_path / "mx").exists()
    Groups("u", "", hierarchies).remove()
