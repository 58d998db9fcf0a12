"""What every ``Engine`` must do: the same tests run on the fake and on namespaces with real criu.

A suite derives from ``EngineContract`` and has five fixtures: ``engine``; ``restarted``, a function that returns a second
engine of the same node, as a restarted agent has; ``images``, which makes a fresh empty directory the engine can write to;
``heard``, which says whether a copy with a network of its own answers to others; ``wires``, which makes both ends of a wire.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from crds.job import Fencing, JobSpec
from crds.network import FEATURE
from nodeagent.engine import Copy, Engine, Network, PageWire, Sandbox
from nodeagent.errors import EngineFailed, SandboxGone, StartFailed

Restarted = Callable[[], Awaitable[Engine]]
Images = Callable[[], Path]
Heard = Callable[[Copy], Awaitable[bool]]
Wires = Callable[[], Awaitable[tuple[PageWire, PageWire]]]

ENV = {"PATH": "/usr/bin:/bin", "HOME": "/"}
DEADLINE = 20.0
LONG = ["sleep", "1000"]
NETWORK = Network("10.77.0.128/24", "52:54:0a:4d:00:80")
DEVICE = "/dev/net/tun"


def copy(name: str, epoch: int = 1) -> Copy:
    """A copy of the job of that name."""
    return Copy("default", name, f"uid-{name}-0123456789", epoch)


def spec(*command: str) -> JobSpec:
    """A job with that command."""
    return JobSpec(command=list(command), workdir="/")


async def started(engine: Engine, which: Copy, *command: str, network: Network | None = None) -> Sandbox:
    """A sandbox with the running job in it."""
    sandbox = await engine.create(which, network)
    await sandbox.start(spec(*command), ENV)
    return sandbox


async def moved(engine: Engine, old: Sandbox, images: Path, network: Network | None = None) -> Sandbox:
    """A second sandbox, of the next epoch, with the stopped copy; the old one is left stopped too."""
    new = await engine.create(Copy(old.copy.namespace, old.copy.name, old.copy.uid, old.copy.epoch + 1), network)
    await new.expect()
    await old.dump(images, deadline=DEADLINE)
    last = await old.last_pid()
    await new.restore(images, last_pid=last, deadline=DEADLINE)
    return new


async def moved_lazily(engine: Engine, old: Sandbox, images: Path, wires: Wires) -> Sandbox:
    """As ``moved``, but most memory is still to come."""
    new = await engine.create(Copy(old.copy.namespace, old.copy.name, old.copy.uid, old.copy.epoch + 1))
    await new.expect()
    out, into = await wires()
    await old.serve(images, out, deadline=DEADLINE)
    out.sock.close()
    await new.restore(images, last_pid=await old.last_pid(), deadline=DEADLINE, wire=into)
    into.sock.close()
    return new


async def code(sandbox: Sandbox) -> int:
    """The exit code, waited for."""
    async with asyncio.timeout(DEADLINE):
        return (await sandbox.wait_exit()).code


class EngineContract:
    """The tests."""

    async def test_version_is_told(self, engine: Engine) -> None:
        assert await engine.version()

    @pytest.mark.parametrize(
        ("command", "expected"),
        [
            (["true"], 0),
            (["sh", "-c", "exit 3"], 3),
            (["sh", "-c", "exit 255"], 255),
            (["sh", "-c", "kill -9 $$"], 137),
            (["sh", "-c", "kill -15 $$"], 143),
        ],
    )
    async def test_exit_code(self, engine: Engine, command: list[str], expected: int) -> None:
        sandbox = await started(engine, copy("code"), *command)
        assert await code(sandbox) == expected
        assert await code(sandbox) == expected, "asked again it says the same"

    @pytest.mark.parametrize(("program", "expected"), [("/no/such/program", 127), ("/etc", 126)])
    async def test_program_that_cannot_be_started(self, engine: Engine, program: str, expected: int) -> None:
        sandbox = await engine.create(copy("nothing"))
        with pytest.raises(StartFailed, match=program) as failure:
            await sandbox.start(spec(program), ENV)
        assert failure.value.exit_code == expected
        await engine.forget(sandbox.copy)
        assert await engine.leftovers() == []

    async def test_second_job_in_one_sandbox_is_refused(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("twice"), *LONG)
        with pytest.raises(EngineFailed):
            await sandbox.start(spec(*LONG), ENV)
        assert (await sandbox.usage()).processes == 1

    async def test_signal_ends_the_job(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("signal"), *LONG)
        await sandbox.signal(signal.SIGTERM)
        assert await code(sandbox) == 143
        assert (await sandbox.usage()).processes == 0
        with pytest.raises(SandboxGone):
            await sandbox.signal(signal.SIGTERM)

    async def test_nobody_can_talk_to_a_job_without_stdio(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("silent"), *LONG)
        with pytest.raises(EngineFailed, match="mx-stdio"):
            await sandbox.attach()

    async def test_kill_without_exit_code_leaves_nothing(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("kill"), *LONG)
        waiting = asyncio.ensure_future(code(sandbox))
        await asyncio.sleep(0)
        await sandbox.kill()
        with pytest.raises(SandboxGone):
            await waiting
        with pytest.raises(SandboxGone):
            await sandbox.usage()
        await sandbox.kill()
        assert await engine.leftovers() == []
        assert await engine.adopt(sandbox.copy) is None

    async def test_exit_is_kept_until_forgotten(self, engine: Engine, restarted: Restarted) -> None:
        sandbox = await started(engine, copy("kept"), "sh", "-c", "exit 5")
        assert await code(sandbox) == 5
        await sandbox.kill()
        again = await restarted()
        assert await again.leftovers() == [sandbox.copy]
        adopted = await again.adopt(sandbox.copy)
        assert adopted is not None
        assert await code(adopted) == 5
        assert not await adopted.frozen()
        await again.forget(sandbox.copy)
        assert await again.leftovers() == []
        assert await again.adopt(sandbox.copy) is None

    async def test_running_job_is_adopted(self, engine: Engine, restarted: Restarted) -> None:
        sandbox = await started(engine, copy("adopted"), "sh", "-c", "sleep 2; exit 9")
        again = await restarted()
        assert await again.leftovers() == [sandbox.copy]
        adopted = await again.adopt(sandbox.copy)
        assert adopted is not None
        assert adopted.copy == sandbox.copy
        assert not await adopted.frozen()
        assert await code(adopted) == 9

    async def test_frozen_job_is_adopted_and_resumed(self, engine: Engine, restarted: Restarted, images: Images) -> None:
        sandbox = await started(engine, copy("frozen"), "sh", "-c", "sleep 2; exit 4")
        await sandbox.dump(images(), deadline=DEADLINE)
        adopted = await (await restarted()).adopt(sandbox.copy)
        assert adopted is not None
        assert await adopted.frozen()
        await adopted.resume()
        assert not await adopted.frozen()
        assert await code(adopted) == 4

    async def test_unknown_copy_is_not_adopted(self, engine: Engine) -> None:
        assert await engine.adopt(copy("stranger")) is None
        await engine.forget(copy("stranger"))

    async def test_creating_again_replaces(self, engine: Engine) -> None:
        first = await started(engine, copy("again"), *LONG)
        second = await engine.create(copy("again"))
        with pytest.raises(SandboxGone):
            await first.wait_exit()
        await second.start(spec("sh", "-c", "exit 2"), ENV)
        assert await code(second) == 2

    async def test_move_goes_on_where_it_was(self, engine: Engine, images: Images) -> None:
        old = await started(engine, copy("moved"), "sh", "-c", "sleep 2; exit 6")
        directory = images()
        new = await moved(engine, old, directory)
        assert any(directory.glob("pages-*.img"))
        assert await old.frozen()
        assert await new.frozen()
        await old.kill()
        await new.resume()
        assert not await new.frozen()
        assert await code(new) == 6
        assert await engine.leftovers() == [new.copy]

    async def test_memory_is_copied_while_the_job_runs(self, engine: Engine, images: Images) -> None:
        job = await started(engine, copy("copied"), "sleep", "60")
        await job.copy_ahead(images() / "ahead", 1 << 40)
        assert not await job.frozen()
        directory = images()
        await job.copy_ahead(directory / "ahead", 8192)
        assert (directory / "ahead").stat().st_size == 8192
        await job.kill()

    async def test_source_can_go_on_instead(self, engine: Engine, images: Images) -> None:
        old = await started(engine, copy("stays"), "sh", "-c", "sleep 2; exit 8")
        new = await moved(engine, old, images())
        await new.kill()
        await old.resume()
        assert await code(old) == 8

    async def test_failed_restore_leaves_the_shim_only(self, engine: Engine, images: Images) -> None:
        old = await started(engine, copy("broken"), *LONG)
        directory = images()
        await old.dump(directory, deadline=DEADLINE)
        next(directory.glob("core-*.img")).write_bytes(b"garbage")
        new = await engine.create(copy("broken", 2))
        await new.expect()
        with pytest.raises(EngineFailed):
            await new.restore(directory, last_pid=await old.last_pid(), deadline=DEADLINE)
        assert not await new.frozen()
        assert (await new.usage()).processes == 0
        await new.kill()
        await old.resume()
        assert (await old.usage()).processes == 1

    async def test_truncated_pages_do_not_hang(self, engine: Engine, images: Images) -> None:
        old = await started(engine, copy("short"), *LONG)
        directory = images()
        await old.dump(directory, deadline=DEADLINE)
        pages = next(directory.glob("pages-*.img"))
        pages.write_bytes(pages.read_bytes()[:4096])
        new = await engine.create(copy("short", 2))
        await new.expect()
        began = time.monotonic()
        with pytest.raises(EngineFailed):
            await new.restore(directory, last_pid=await old.last_pid(), deadline=1.0)
        assert time.monotonic() - began < 5.0
        assert (await new.usage()).processes == 0
        await new.kill()
        await old.resume()
        assert not await old.frozen()

    async def test_dump_of_nothing_fails(self, engine: Engine, images: Images) -> None:
        sandbox = await engine.create(copy("empty"))
        with pytest.raises(EngineFailed):
            await sandbox.dump(images(), deadline=DEADLINE)

    async def test_missing_images_directory_fails_the_dump_and_the_job_runs_on(self, engine: Engine, images: Images) -> None:
        sandbox = await started(engine, copy("nodir"), "sh", "-c", "sleep 0.3; exit 1")
        with pytest.raises(EngineFailed):
            await sandbox.dump(images() / "missing", deadline=DEADLINE)
        assert not await sandbox.frozen()
        assert await code(sandbox) == 1

    async def test_killed_while_frozen(self, engine: Engine, images: Images) -> None:
        sandbox = await started(engine, copy("iced"), *LONG)
        await sandbox.dump(images(), deadline=DEADLINE)
        await sandbox.kill()
        assert await engine.leftovers() == []

    async def test_a_fenced_job_stands_still_until_it_is_thawed(self, engine: Engine, restarted: Restarted) -> None:
        sandbox = await started(engine, copy("fenced"), "sh", "-c", "sleep 0.3; exit 4")
        assert engine.fences and not await sandbox.fenced()
        assert await engine.fence()
        assert await engine.fence() == [], "there is nothing left to do"
        adopted = await (await restarted()).adopt(sandbox.copy)
        assert adopted is not None and await adopted.fenced()
        assert not await adopted.frozen()
        await adopted.resume()
        waiting = asyncio.ensure_future(code(adopted))
        await asyncio.sleep(0.6)
        assert not waiting.done()
        await adopted.thaw()
        assert not await adopted.fenced()
        assert await waiting == 4

    async def test_what_is_stopped_stays_so_when_it_is_thawed(self, engine: Engine, images: Images) -> None:
        sandbox = await started(engine, copy("twofold"), "sh", "-c", "sleep 0.1; exit 3")
        await sandbox.dump(images(), deadline=DEADLINE)
        assert await engine.fence()
        await sandbox.thaw()
        assert await sandbox.frozen()
        await sandbox.resume()
        assert await code(sandbox) == 3

    async def test_fencing_is_as_it_was_told(self, engine: Engine, restarted: Restarted) -> None:
        killed, kept = await started(engine, copy("killed"), *LONG), await started(engine, copy("left"), *LONG)
        await killed.obey(Fencing.KILL)
        await kept.obey(Fencing.KEEP)
        assert len(await engine.fence()) == 1
        assert await code(killed) == 137
        assert (await killed.wait_exit()).fenced
        assert not await kept.fenced()
        await kept.signal(signal.SIGKILL)
        assert not (await kept.wait_exit()).fenced
        adopted = await (await restarted()).adopt(killed.copy)
        assert adopted is not None and (await adopted.wait_exit()).fenced

    async def test_a_fenced_job_can_be_killed(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("stale"), *LONG)
        await engine.fence()
        await sandbox.kill()
        assert await engine.leftovers() == []

    async def test_its_share_of_the_cpu_can_be_set(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("weigh"), *LONG)
        for weight in (1, 100, 10_000):
            await sandbox.weigh(weight)
        await sandbox.kill()

    async def test_usage(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("usage"), *LONG)
        usage = await sandbox.usage()
        assert usage.processes == 1
        assert usage.memory > 0
        assert await sandbox.last_pid() >= 2

    @pytest.mark.parametrize("thorough", [False, True])
    async def test_nothing_keeps_an_ordinary_job_from_being_moved(self, engine: Engine, thorough: bool) -> None:
        sandbox = await started(engine, copy("plain"), *LONG)
        assert await sandbox.obstacles(thorough=thorough) == []

    async def test_a_device_keeps_a_job_from_being_moved(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("device"), "sh", "-c", f"exec 3<>{DEVICE}; sleep 1000")
        end = time.monotonic() + DEADLINE
        while not (found := await sandbox.obstacles(thorough=False)):  # the shell has to open it first
            assert time.monotonic() < end, "the device is not seen"
            await asyncio.sleep(0.01)
        assert {each.reason for each in found} == {"DeviceFile"} and all(DEVICE in each.message for each in found), found
        assert {each.reason for each in await sandbox.obstacles(thorough=True)} == {"DeviceFile"}

    async def test_nothing_keeps_an_ended_job_from_being_moved(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("over"), "true")
        await code(sandbox)
        assert await sandbox.obstacles(thorough=True) == []

    async def test_resume_of_a_running_job_changes_nothing(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("resumed"), *LONG)
        await sandbox.resume()
        assert not await sandbox.frozen()

    async def test_a_job_with_its_own_network_is_heard_from_its_start_to_its_end(self, engine: Engine, heard: Heard) -> None:
        assert FEATURE in await engine.features()
        sandbox = await engine.create(copy("net"), NETWORK)
        assert not await heard(sandbox.copy)
        await sandbox.start(spec(*LONG), ENV)
        assert await heard(sandbox.copy)
        await sandbox.kill()
        assert not await heard(sandbox.copy)
        assert await engine.leftovers() == []

    async def test_of_two_copies_only_the_one_that_runs_is_heard(self, engine: Engine, images: Images, heard: Heard) -> None:
        old = await started(engine, copy("moving"), *LONG, network=NETWORK)
        new = await moved(engine, old, images(), NETWORK)
        assert not await heard(old.copy) and not await heard(new.copy)
        await old.kill()
        assert not await heard(new.copy)
        await new.resume()
        assert await heard(new.copy)

    async def test_a_job_whose_move_failed_is_heard_again(self, engine: Engine, images: Images, heard: Heard) -> None:
        old = await started(engine, copy("failing"), *LONG, network=NETWORK)
        new = await moved(engine, old, images(), NETWORK)
        await new.kill()
        await old.resume()
        assert await heard(old.copy)

    async def test_a_job_whose_dump_failed_is_heard_again(self, engine: Engine, images: Images, heard: Heard) -> None:
        sandbox = await started(engine, copy("undumped"), *LONG, network=NETWORK)
        with pytest.raises(EngineFailed):
            await sandbox.dump(images() / "missing", deadline=DEADLINE)
        assert await heard(sandbox.copy)

    async def test_a_restarted_agent_changes_nothing_about_who_is_heard(
        self, engine: Engine, restarted: Restarted, images: Images, heard: Heard
    ) -> None:
        running = await started(engine, copy("running"), *LONG, network=NETWORK)
        other = Network("10.77.0.129/24", "52:54:0a:4d:00:81")
        frozen = await started(engine, copy("iced"), *LONG, network=other)
        await frozen.dump(images(), deadline=DEADLINE)
        second = await restarted()
        for which, expected in ((running.copy, True), (frozen.copy, False)):
            assert await second.adopt(which) is not None
            assert await heard(which) == expected
        found = await second.adopt(frozen.copy)
        assert found is not None
        await found.resume()
        assert await heard(frozen.copy)

    async def test_memory_follows_a_job_that_goes_on_where_it_was(self, engine: Engine, images: Images, wires: Wires) -> None:
        old = await started(engine, copy("lazy"), "sh", "-c", "sleep 2; exit 6")
        new = await moved_lazily(engine, old, images(), wires)
        assert await old.frozen()
        assert await new.frozen()
        await old.sever()
        await new.resume()
        async with asyncio.timeout(DEADLINE):
            await old.streamed()
            await new.streamed()
        with pytest.raises(EngineFailed):
            await old.resume()
        await old.sever()
        await old.kill()
        assert await code(new) == 6
        assert await engine.leftovers() == [new.copy]

    async def test_source_of_memory_can_go_on_instead(self, engine: Engine, images: Images, wires: Wires) -> None:
        old = await started(engine, copy("back"), "sh", "-c", "sleep 2; exit 8")
        out, _ = await wires()
        await old.serve(images(), out, deadline=DEADLINE)
        assert await old.frozen()
        await old.resume()
        assert not await old.frozen()
        assert await code(old) == 8

    async def test_death_of_the_agent_does_not_stop_memory(
        self, engine: Engine, restarted: Restarted, images: Images, wires: Wires
    ) -> None:
        old = await started(engine, copy("outlives"), "sh", "-c", "sleep 2; exit 7")
        new = await moved_lazily(engine, old, images(), wires)
        again = await restarted()
        source, target = await again.adopt(old.copy), await again.adopt(new.copy)
        assert source is not None
        assert target is not None
        assert await source.frozen()
        await source.sever()
        await target.resume()
        async with asyncio.timeout(DEADLINE):
            await source.streamed()
            await target.streamed()
        assert await code(target) == 7
        await source.kill()

    async def test_job_whose_memory_does_not_come_is_gone(self, engine: Engine, images: Images, wires: Wires) -> None:
        script = "import time\na = bytearray(100 << 20)\nfor at in range(0, len(a), 4096): a[at] = 1\ntime.sleep(1000)"
        old = await started(engine, copy("torn"), "python3", "-c", script)
        async with asyncio.timeout(DEADLINE):
            while (await old.usage()).memory < self.torn_memory:  # noqa: ASYNC110 - nothing tells it
                await asyncio.sleep(0.01)
        new = await moved_lazily(engine, old, images(), wires)
        await old.kill()
        with pytest.raises(SandboxGone, match="part of its memory never came"):
            await code(new)

    torn_memory = 100 << 20

    async def test_end_of_a_stream_that_never_was(self, engine: Engine) -> None:
        sandbox = await started(engine, copy("dry"), *LONG)
        async with asyncio.timeout(DEADLINE):
            await sandbox.streamed()
        with pytest.raises(EngineFailed):
            await sandbox.sever()
        assert (await sandbox.usage()).processes == 1

    async def test_a_fenced_job_is_heard_again_when_it_is_thawed(self, engine: Engine, images: Images, heard: Heard) -> None:
        running = await started(engine, copy("distant"), *LONG, network=NETWORK)
        other = Network("10.77.0.129/24", "52:54:0a:4d:00:81")
        frozen = await started(engine, copy("leaving"), *LONG, network=other)
        await frozen.dump(images(), deadline=DEADLINE)
        await engine.fence()
        assert not await heard(running.copy)
        assert await engine.fence() == []
        for sandbox in (running, frozen):
            await sandbox.thaw()
        assert await heard(running.copy) and not await heard(frozen.copy)

    async def test_memory_goes_ahead_of_a_job_where_the_kernel_tracks_it(self, engine: Engine, images: Images) -> None:
        old = await started(engine, copy("ahead"), "sh", "-c", "sleep 2; exit 5")
        top = images()
        rounds = [top / f"round-{number}" for number in (1, 2)]
        for directory in rounds:
            directory.mkdir()
        if "pre-copy" not in await engine.features():
            with pytest.raises(EngineFailed, match="pre-dump"):
                await old.pre_dump(rounds[0], None, deadline=DEADLINE)
            assert not await old.frozen()
            assert await code(old) == 5, "it is none the worse for it"
            return
        await old.pre_dump(rounds[0], None, deadline=DEADLINE)
        assert not await old.frozen()
        await old.pre_dump(rounds[1], "../round-1", deadline=DEADLINE)
        new = await engine.create(Copy(old.copy.namespace, old.copy.name, old.copy.uid, 2))
        await new.expect()
        await old.dump(top, deadline=DEADLINE, parent="round-2")
        await new.restore(top, last_pid=await old.last_pid(), deadline=DEADLINE)
        await old.kill()
        await new.resume()
        assert await code(new) == 5
