"""The real engine on a real node: namespaces, control groups, criu. What the contract says, and what only the real one has."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from crds.job import JobSpec
from nodeagent.errors import EngineFailed, SandboxGone, StartFailed
from nodeagent.jobdir import LOG, job_directory
from tests.engine_contract import DEADLINE, ENV, LONG, EngineContract, Images, Restarted, code, copy, moved, spec, started
from tests.system.testnode import RemoteEngine, TestNode
from tests.system.witness import Witness, eventually

BIG = "import numpy, time\na = numpy.random.default_rng(1).random(100 * 2**17)\ns = a.sum()\n"
"""100 MB that cannot be compressed or shared."""
BIG_COUNTER = BIG + (
    "i = 0\nwhile True:\n    assert i % 50 or a.sum() == s\n    print(i, flush=True)\n    i += 1\n    time.sleep(0.002)\n"
)


class TestNamespaces(EngineContract):
    """The contract."""


async def test_output_environment_and_directory(node: TestNode, engine: RemoteEngine) -> None:
    which = copy("output")
    sandbox = await engine.create(which)
    script = "pwd; echo $GREETING; echo err >&2; cat; readlink /proc/self/fd/0; echo $$; ls /proc | grep -c '^[0-9]'"
    env = {**ENV, "GREETING": "hello there"}
    await sandbox.start(JobSpec(command=["sh", "-c", script], workdir="/usr"), env)
    assert await code(sandbox) == 0
    lines = (job_directory(node.shared, which) / LOG).read_text().splitlines()
    assert lines[:4] == ["/usr", "hello there", "err", "/dev/null"]
    assert int(lines[4]) == 2, "it has PIDs of its own"
    assert int(lines[5]) <= 5, "and its own /proc"


@pytest.mark.parametrize(
    ("workdir", "content", "message"),
    [
        ("/no/dir", "#!/bin/sh\n", "working directory /no/dir"),
        ("/", "#!/no/interpreter\n", "script"),
        ("/", "no program", "script"),
    ],
)
async def test_why_it_cannot_be_started(node: TestNode, engine: RemoteEngine, workdir: str, content: str, message: str) -> None:
    script = node.shared / "script"
    script.write_text(content)
    script.chmod(0o755)
    sandbox = await engine.create(copy("why"))
    with pytest.raises(StartFailed, match=message) as failure:
        await sandbox.start(JobSpec(command=["/shared/script"], workdir=workdir), ENV)
    assert failure.value.exit_code in (126, 127)
    await sandbox.start(spec("true"), ENV)
    assert await code(sandbox) == 0, "the sandbox is as good as new"


async def test_signal_dispositions_are_reset(node: TestNode, engine: RemoteEngine) -> None:
    sandbox = await started(engine, copy("signals"), "sh", "-c", "grep -E 'Sig(Ign|Blk)' /proc/self/status; yes | head -1")
    assert await code(sandbox) == 0
    lines = (job_directory(node.shared, sandbox.copy) / LOG).read_text().splitlines()
    masks = {line.split()[0]: int(line.split()[1], 16) for line in lines if line.startswith("Sig")}
    assert masks == {"SigBlk:": 0, "SigIgn:": 0}
    assert len(lines) == 3, "yes died of SIGPIPE, silently"


async def test_tmp_and_shm_are_the_jobs_own(node: TestNode, engine: RemoteEngine) -> None:
    sandbox = await started(engine, copy("dirs"), "sh", "-c", "echo a > /tmp/a; echo b > /dev/shm/b; stat -c %a /tmp")
    assert await code(sandbox) == 0
    directory = job_directory(node.shared, sandbox.copy)
    assert (directory / "tmp/a").read_text() == "a\n"
    assert (directory / "shm/b").read_text() == "b\n"
    assert (directory / LOG).read_text() == "1777\n"
    assert not node.path("/tmp/a").exists()


async def test_shim_is_not_found_by_the_names_of_daemons(node: TestNode, engine: RemoteEngine) -> None:
    await started(engine, copy("hidden"), *LONG)
    lines = [line for line in node.run("ps", "-eo", "args=").splitlines() if "mx-shim" in line]
    assert len(lines) == 1
    assert not any(word in lines[0] for word in ("nodeagent", "reconciler", "etcd"))


async def test_what_the_first_process_leaves_behind_ends_with_it(node: TestNode, engine: RemoteEngine) -> None:
    sandbox = await started(engine, copy("behind"), "sh", "-c", "setsid sleep 7001 & (sleep 7002 &); sleep 1; exit 3")

    def sleepers() -> int:
        return sum(line.startswith("sleep 700") for line in node.run("ps", "-eo", "args=").splitlines())

    await eventually(lambda: sleepers() == 2)
    assert await code(sandbox) == 3
    assert sleepers() == 0


@pytest.mark.parametrize("state", ["empty", "running", "frozen", "ended", "daemons", "dumping"])
async def test_nothing_is_left(node: TestNode, engine: RemoteEngine, images: Images, state: str) -> None:
    directory = images()
    assert await engine.leftovers() == []  # and by that the agent is up, and counted
    before = node.remains()
    sandbox = await engine.create(copy("clean"))
    if state == "ended":
        await sandbox.start(spec("true"), ENV)
        await sandbox.wait_exit()
    elif state == "daemons":
        await sandbox.start(spec("sh", "-c", "trap '' TERM; (setsid sleep 1000 &); sleep 1000 & sleep 1000"), ENV)
    elif state != "empty":
        await sandbox.start(spec(*LONG), ENV)
    dump: asyncio.Future[None] | None = None
    if state == "frozen":
        await sandbox.dump(directory, deadline=DEADLINE)
    elif state == "dumping":
        dump = asyncio.ensure_future(sandbox.dump(directory, deadline=DEADLINE))
        await eventually(lambda: any(directory.iterdir()))
    await engine.forget(sandbox.copy)
    assert node.remains() == before
    if dump is not None:
        with contextlib.suppress(SandboxGone, EngineFailed):  # it may have been done when the sandbox was forgotten
            await dump


async def test_agents_death_does_not_touch_the_job(node: TestNode, engine: RemoteEngine, restarted: Restarted) -> None:
    witness = Witness(node, copy("survivor"))
    await witness.start(engine)
    seen = await witness.goes_on()
    again = await restarted()
    adopted = await again.adopt(witness.copy)
    assert adopted is not None
    assert await witness.goes_on() > seen
    await adopted.signal(signal.SIGTERM)
    assert await code(adopted) == 143


@pytest.mark.parametrize("after_ms", [5, 25, 60, 120])
async def test_overrun_dump_leaves_the_job_whole(node: TestNode, engine: RemoteEngine, images: Images, after_ms: int) -> None:
    witness = Witness(node, copy(f"overrun{after_ms}"), "python3", "-c", BIG_COUNTER)
    sandbox = await witness.start(engine)
    await witness.goes_on()
    try:
        await sandbox.dump(images(), deadline=after_ms / 1000)
    except EngineFailed as error:
        assert "longer" in str(error)
        assert not await sandbox.frozen()
    else:
        assert after_ms > 5, "no dump of so much memory takes 5 ms"
        await sandbox.resume()  # a fast machine was done before the deadline
    await witness.goes_on(60)
    await sandbox.dump(images(), deadline=DEADLINE)
    await sandbox.resume()
    await witness.goes_on(60)


async def test_cancelled_dump_leaves_the_job_whole(node: TestNode, engine: RemoteEngine, images: Images) -> None:
    witness = Witness(node, copy("cancelled"), "python3", "-c", BIG_COUNTER)
    sandbox = await witness.start(engine)
    await witness.goes_on()
    directory = images()
    dump = asyncio.ensure_future(sandbox.dump(directory, deadline=DEADLINE))
    await eventually(lambda: any(directory.glob("pages-*")))
    dump.cancel()
    await asyncio.wait([dump])
    assert not await sandbox.frozen()
    await witness.goes_on(60)


async def test_agent_dies_in_the_middle_of_a_dump(
    node: TestNode, engine: RemoteEngine, restarted: Restarted, images: Images
) -> None:
    witness = Witness(node, copy("middle"), "python3", "-c", BIG_COUNTER)
    sandbox = await witness.start(engine)
    await witness.goes_on()
    directory = images()
    dump = asyncio.ensure_future(sandbox.dump(directory, deadline=DEADLINE))
    await eventually(lambda: any(directory.glob("pages-*")))
    adopted = await (await restarted()).adopt(sandbox.copy)
    with pytest.raises(ConnectionError):
        await dump
    assert adopted is not None
    assert await adopted.frozen()
    await adopted.resume()
    await witness.goes_on(60)


async def test_agent_dies_in_the_middle_of_a_restore(
    node: TestNode, engine: RemoteEngine, restarted: Restarted, images: Images
) -> None:
    old = await started(engine, copy("undecided"), *LONG)
    directory = images()
    last = await old.last_pid()
    await old.dump(directory, deadline=DEADLINE)
    _truncate(next(directory.glob("pages-*.img")))  # this restore hangs for ever
    new = await engine.create(copy("undecided", 2))
    await new.expect()
    restore = asyncio.ensure_future(new.restore(directory, last_pid=last, deadline=DEADLINE))
    await eventually(lambda: "criu restore" in node.run("ps", "-eo", "args="))
    again = await restarted()
    with pytest.raises(ConnectionError):
        await restore
    adopted = await again.adopt(new.copy)
    assert adopted is not None
    assert not await adopted.frozen()
    assert (await adopted.usage()).processes == 0
    assert "criu" not in node.run("ps", "-eo", "args=")
    source = await again.adopt(old.copy)
    assert source is not None
    assert await source.frozen()
    await source.resume()


def _truncate(pages: Path) -> None:
    pages.write_bytes(pages.read_bytes()[:4096])


async def test_restored_processes_are_in_the_jobs_groups(node: TestNode, engine: RemoteEngine, images: Images) -> None:
    old = await started(engine, copy("groups"), "sh", "-c", "sleep 1000 & sleep 1000")
    await eventually(lambda: node.run("ps", "-eo", "args=").count("sleep 1000") >= 2)
    new = await moved(engine, old, images())
    await old.kill()
    await new.resume()
    name = f"jobs/default_groups_{new.copy.epoch}"
    counts = [len((top / name / "cgroup.procs").read_text().split()) for top in node.groups.directories]
    assert counts == [3] * len(counts)
    usage = await new.usage()
    assert usage.processes == 3
    assert usage.memory > 0
