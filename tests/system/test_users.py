"""Jobs of users that are not root move too: whom they run as, and under what limits, stays the same there and back."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from crds.job import JobSpec, RunAs
from nodeagent.engine import Copy, Sandbox
from nodeagent.errors import EngineFailed, StartFailed
from nodeagent.jobdir import LOG, job_directory
from tests.engine_contract import ENV, copy
from tests.system.road import Road
from tests.system.testnode import RemoteEngine, RemoteSandbox, TestNode
from tests.system.witness import COUNTER, Witness, eventually

USER = RunAs(uid=1234, gid=5678, groups=[4711, 4712])
LIMITS = {"nofile": 512, "core": 0, "nproc": 300, "fsize": 1 << 30, "stack": 4 << 20}
TREE = """
import itertools, os, time
if os.fork() == 0:
    while True: time.sleep(0.01)
own = open("/tmp/own", "w"); own.write("mine"); own.flush()
os.write(os.open("made", os.O_WRONLY | os.O_CREAT, 0o666), b"x")
for i in itertools.count(): print(i, flush=True); own.seek(0); own.write(str(i)); own.flush(); time.sleep(0.005)
"""


@pytest.fixture
def place(node: TestNode) -> Path:
    """A directory of the user's on the shared file system."""
    directory = node.shared / "of-1234"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o700)

    os.chown(directory, USER.uid, USER.gid)
    return directory


def spec(*command: str, **changes: Any) -> JobSpec:
    return JobSpec.model_validate(
        {
            "command": list(command),
            "workdir": "/shared/of-1234",
            "user": USER,
            "limits": LIMITS,
            "nice": 7,
            "umask": "027",
            **changes,
        }
    )


def facts(node: TestNode, program: str) -> list[dict[str, Any]]:
    """What /proc says of the processes with that command line, the parent first."""
    script = (
        "import glob, json, os, sys\nfound = []\n"
        "for d in sorted(glob.glob('/proc/[0-9]*'), key=lambda d: int(d[6:])):\n"
        "    try: line = open(d + '/cmdline').read()\n"
        "    except OSError: continue\n"
        "    if sys.argv[1] not in line or 'import glob' in line: continue\n"
        "    status = dict(l.split(':', 1) for l in open(d + '/status') if ':' in l)\n"
        "    keep = {k: status[k].split() for k in ('Uid', 'Gid', 'Groups', 'Umask', 'NoNewPrivs', 'CapEff', 'CapBnd')}\n"
        "    nice = open(d + '/stat').read().rpartition(')')[2].split()[16]\n"
        "    limits = [l[:60].split() for l in open(d + '/limits')]\n"
        "    keep |= {'nice': nice, 'limits': limits, 'cwd': os.readlink(d + '/cwd'), 'env': open(d + '/environ').read()}\n"
        "    found.append(keep)\n"
        "print(json.dumps(found))"
    )
    found: list[dict[str, Any]] = json.loads(node.run("python3", "-c", script, program))
    return found


async def begin(road: Road, node: TestNode, name: str, wanted: JobSpec) -> tuple[Witness, Sandbox]:
    witness = Witness(node, copy(name))
    witness.log.unlink(missing_ok=True)
    sandbox: Sandbox = await road.engine.create(witness.copy)
    await sandbox.start(wanted, {**ENV, "GREETING": "hello there"})
    await witness.goes_on()
    return witness, sandbox


async def test_everything_is_kept_over_moves(road: Road, node: TestNode, place: Path) -> None:
    witness, sandbox = await begin(road, node, "user", spec("python3", "-c", TREE))
    await eventually(lambda: len(facts(road.ends[0][0], "itertools")) == 2)
    before = facts(road.ends[0][0], "itertools")
    assert before[0]["Uid"] == ["1234"] * 4
    assert before[0]["Gid"] == ["5678"] * 4
    assert before[0]["Groups"] == ["4711", "4712"]
    assert before[0]["Umask"] == ["0027"]
    assert before[0]["nice"] == "7"
    assert before[0]["cwd"] == "/shared/of-1234"
    assert "GREETING=hello there" in before[0]["env"]
    assert int(before[0]["CapEff"][0], 16) == 0
    assert ["Max", "open", "files", "512", "512"] in before[0]["limits"]
    for _ in range(3):
        sandbox = await road.move(sandbox)
        await witness.goes_on(20)
        assert facts(road.ends[road.at][0], "itertools") == before
    for path in (
        witness.log,
        witness.log.parent / "tmp",
        witness.log.parent / "shm",
        place / "made",
        witness.log.parent / "tmp/own",
    ):
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678), path
    assert (place / "made").stat().st_mode & 0o777 == 0o640
    assert witness.log.parent.stat().st_uid == 0, "nobody else may put another file in the place of the log"


async def test_everything_is_kept_when_memory_follows(road: Road, node: TestNode, place: Path) -> None:
    """criu dumps as the user there, too, and hands out the pages as the user."""
    witness, sandbox = await begin(road, node, "userlazy", spec("python3", "-c", TREE))
    await eventually(lambda: len(facts(road.ends[0][0], "itertools")) == 2)
    before = facts(road.ends[0][0], "itertools")
    for _ in range(2):
        assert isinstance(sandbox, RemoteSandbox)
        sandbox = await road.move_lazily(sandbox)
        await witness.goes_on(20)
        assert facts(road.ends[road.at][0], "itertools") == before


async def test_cancelled_dump_leaves_a_users_job_whole(road: Road, node: TestNode, place: Path) -> None:
    """criu runs as the user then: making it give up is as much the user's matter."""
    big = "import numpy\na = numpy.ones(60 * 2**17)\n" + COUNTER[2]
    witness, sandbox = await begin(road, node, "userstop", spec("python3", "-c", big))
    directory = node.path("/run/mx/userstop")
    directory.mkdir(parents=True)
    try:
        await sandbox.dump(directory, deadline=0.03)
    except EngineFailed as error:
        assert "longer" in str(error)
    else:
        await sandbox.resume()
    assert not await sandbox.frozen()
    await witness.goes_on(20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limits": {"nofile": 1 << 30}}, "limit nofile=1073741824: "),
        ({"workdir": "/root"}, "working directory /root: Permission denied"),
        ({"command": ["/shared/of-1234/no"]}, "/shared/of-1234/no: No such file"),
    ],
)
async def test_why_it_cannot_be_started(engine: RemoteEngine, place: Path, changes: dict[str, Any], message: str) -> None:
    sandbox = await engine.create(copy("userwhy"))
    with pytest.raises(StartFailed, match=message):
        await sandbox.start(spec(*changes.pop("command", ["true"]), **changes), ENV)


def can_raise_limits(node: TestNode) -> bool:
    effective = next(line for line in node.run("cat", "/proc/self/status").splitlines() if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


MIXED = """
import itertools, os, time
if os.fork() == 0:
    os.setgid(1234); os.setuid(1234)
    while True: time.sleep(0.01)
time.sleep(0.1)
for i in itertools.count(): print(i, flush=True); time.sleep(0.005)
"""


async def test_tree_of_several_users(road: Road, node: TestNode) -> None:
    """With CAP_SYS_RESOURCE it moves; without it that is refused, in words, and the job runs on."""
    witness = Witness(node, copy("mixed"), "python3", "-c", MIXED)
    sandbox = await witness.start(road.engine)
    await witness.goes_on(20)
    if can_raise_limits(node):
        sandbox = await road.move(sandbox)
    else:
        with pytest.raises(EngineFailed, match=r"several users, 0:0 .*, 1234:1234 .*CAP_SYS_RESOURCE"):
            await road.move(sandbox)
    assert not await sandbox.frozen()
    await witness.goes_on(20)


async def test_job_that_gives_up_root_moves(road: Road, node: TestNode) -> None:
    """Started as root, it has become another user: whom it runs as is looked up when it is dumped."""
    script = "import os\nos.setgroups([]); os.setgid(1234); os.setuid(1234)\n" + COUNTER[2]
    witness = Witness(node, copy("dropped"), "python3", "-c", script)
    sandbox = await witness.start(road.engine)
    await witness.goes_on(20)
    for _ in range(2):
        sandbox = await road.move(sandbox)
        await witness.goes_on(20)
    assert facts(road.ends[road.at][0], "setgroups")[0]["Uid"] == ["1234"] * 4


async def test_output_is_not_written_through_a_link(engine: RemoteEngine, node: TestNode) -> None:
    which = Copy("default", "linked", "uid-linked-0123456789", 1)
    sandbox = await engine.create(which)
    (job_directory(node.shared, which) / LOG).symlink_to("/shared/elsewhere")
    with pytest.raises(StartFailed, match="output file"):
        await sandbox.start(JobSpec(command=["echo", "x"]), ENV)
    assert not (node.shared / "elsewhere").exists()
