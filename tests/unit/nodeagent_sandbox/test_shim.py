"""The shim's requests, served by an ordinary process: what needs no namespaces of its own. The rest is in tests/system."""

import asyncio
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodeagent.errors import SandboxGone
from nodeagent.shim import identity, kernel, program, serve, state
from nodeagent.shimlink import Identity, ShimLink, read_identity

ENV = {"PATH": "/usr/bin:/bin"}


def serve_here(run_dir: str) -> None:
    """In a child: what pid 1 does after its mounts are made. Like pid 1 it inherits orphans.

    It sees all the machine's processes, not a job's only; so whose they are must not matter.
    """
    identity.may_raise_limits = lambda: True
    kernel.libc_call("prctl", program.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    serve.serve(state.Shim(run_dir), serve.listen(run_dir))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    directory = tmp_path / ("long" * 30)  # longer than a socket's path may be
    directory.mkdir()
    return directory


@pytest.fixture
def process(run_dir: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    process = multiprocessing.get_context("fork").Process(target=serve_here, args=(str(run_dir),))
    process.start()
    yield process
    process.kill()
    process.join()


@pytest.fixture
async def link(run_dir: Path, process: multiprocessing.process.BaseProcess) -> ShimLink:
    assert process.pid is not None
    async with asyncio.timeout(10):
        while not (run_dir / "control").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.005)
    return ShimLink(run_dir, Identity(process.pid, kernel.start_time(process.pid)), "default/w")


def job(run_dir: Path, *command: str, **changes: Any) -> dict[str, Any]:
    return {"command": list(command), "env": ENV, "workdir": "/", "log": str(run_dir / "log"), "groups": [], **changes}


async def test_exit_is_on_disk_when_the_shim_has_ended(run_dir: Path, link: ShimLink) -> None:
    (run_dir / "log").write_text("before\n")
    answer = await link.ask("start", **job(run_dir, "sh", "-c", "echo out; echo err >&2; exit 7"))
    assert answer["pid"] > 1
    async with asyncio.timeout(10):
        await link.wait()
    assert json.loads((run_dir / "exit.json").read_text())["code"] == 7
    assert (run_dir / "log").read_text() == "before\nout\nerr\n"


@pytest.mark.parametrize("number", [9, 15])
async def test_signal_is_128_and_more(run_dir: Path, link: ShimLink, number: int) -> None:
    await link.ask("start", **job(run_dir, "sleep", "100"))
    await link.ask("signal", number=number)
    async with asyncio.timeout(10):
        await link.wait()
    assert json.loads((run_dir / "exit.json").read_text())["code"] == 128 + number


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"command": ["/no/such"]}, 127, "/no/such: No such file or directory"),
        ({"command": ["nosuchprogram"]}, 127, "nosuchprogram: No such file or directory"),
        ({"command": ["/etc"]}, 126, "/etc: Permission denied"),
        ({"command": ["a\0b"]}, 126, "embedded null"),
        ({"workdir": "/no/dir"}, 126, "working directory /no/dir: No such file"),
        ({"log": "/no/dir/log"}, 126, "output file /no/dir/log: No such file"),
    ],
)
async def test_failure_to_start_is_told_exactly(
    run_dir: Path, link: ShimLink, changes: dict[str, Any], code: int, text: str
) -> None:
    answer = await link.ask_raw("start", **{**job(run_dir, "true"), **changes})
    assert (answer["ok"], answer["code"]) == (False, code)
    assert text in answer["error"]
    assert (await link.ask("start", **job(run_dir, "sleep", "100")))["ok"], "the sandbox can still be used"
    await link.ask("signal", number=9)


@pytest.mark.parametrize(
    "request_line", [b"\n", b"{}\n", b"[]\n", b'{"do": "fly"}\n', b'{"do": "thaw", "x": 1}\n', b"\xff\n", b'{"do": "start"}\n']
)
async def test_nonsense_is_answered_and_survived(run_dir: Path, link: ShimLink, request_line: bytes) -> None:
    answer = json.loads(await link._exchange(request_line))
    assert answer["ok"] is False
    assert answer["error"]
    assert (await link.ask("status"))["phase"] == state.EMPTY


async def test_caller_that_says_nothing_does_not_block(link: ShimLink) -> None:
    directory = os.open(link.run_dir, os.O_PATH)
    _, silent = await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/control")
    os.close(directory)
    silent.write(b'{"do": "sta')
    assert (await link.ask("status"))["ok"]
    silent.close()
    assert (await link.ask("status"))["ok"]


async def test_second_start_is_refused(run_dir: Path, link: ShimLink) -> None:
    await link.ask("start", **job(run_dir, "sleep", "100"))
    answer = await link.ask_raw("start", **job(run_dir, "sleep", "100"))
    assert answer["error"] == "the sandbox is running, not empty"
    await link.ask("signal", number=9)


async def test_never_kills_everything_outside_a_namespace(link: ShimLink) -> None:
    answer = await link.ask_raw("clear")
    assert "not pid 1" in answer["error"]


async def test_dead_shim_is_gone(link: ShimLink) -> None:
    assert link.lives
    await link.kill()
    assert not link.lives
    await link.kill()
    with pytest.raises(SandboxGone):
        await link.ask("status")


async def test_another_process_with_its_pid_is_not_it(run_dir: Path) -> None:
    assert read_identity(run_dir) is None
    kernel.write_atomically(str(run_dir / "shim.json"), {"pid": os.getpid(), "start": 1})
    link = ShimLink(run_dir, read_identity(run_dir), "default/w")
    assert not link.lives
    await link.kill()  # must not kill the test


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (set(), 1),
        ({2, 40}, 40),
        ({2, 31768}, 31768),
        ({2, 32760}, 299),  # the numbers start again from 300 soon after it
        ({2, 32760, 301, 20000}, 301),
        ({2, 32760, 301, 302, 9000}, 9000),
    ],
)
def test_criu_starts_clear_of_the_pids_in_use(used: set[int], expected: int) -> None:
    assert kernel.clear_of(used, 32768) == expected


async def test_what_a_killed_criu_leaves_behind_is_killed(
    run_dir: Path, link: ShimLink, process: multiprocessing.process.BaseProcess
) -> None:
    answer = await link.ask("start", **job(run_dir, "sleep", "600"))
    dump = await link.ask("dump", argv=["sh", "-c", "sleep 600 & kill -9 $$"])
    assert dump["rc"] == 137
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    async with asyncio.timeout(10):
        while children.read_text().split() != [str(answer["pid"])]:  # noqa: ASYNC110 - another process's children
            await asyncio.sleep(0.005)
    await link.ask("signal", number=9)
    async with asyncio.timeout(10):
        await link.wait()
