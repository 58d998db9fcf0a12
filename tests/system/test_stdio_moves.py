"""Jobs people talk to, on real nodes with real criu: the conversation goes on over moves without a lost or doubled byte."""

from pathlib import Path

import pytest

from crds.job import JobSpec
from nodeagent.engine import Copy
from nodeagent.errors import EngineFailed, StartFailed
from nodeagent.jobdir import LOG, job_directory
from nodeagent.stdio.client import Client
from tests.engine_contract import ENV, Images, code, copy
from tests.system.talker import Talker
from tests.system.testnode import RemoteEngine, RemoteSandbox, TestNode


def socket_of(node: TestNode, which: Copy) -> Path:
    return node.path(f"/run/mx/copies/{which.namespace}_{which.name}_{which.epoch}_{which.uid[:8]}/stdio/job")


def spec(*command: str, **stdio: object) -> JobSpec:
    return JobSpec.model_validate({"command": list(command), "workdir": "/", "stdio": {"stdin": True, "hold": True, **stdio}})


async def hop(engine: RemoteEngine, old: RemoteSandbox, images: Path) -> RemoteSandbox:
    new = await engine.create(Copy(old.copy.namespace, old.copy.name, old.copy.uid, old.copy.epoch + 1))
    await new.expect()
    await old.dump(images, deadline=20)
    await new.restore(images, last_pid=await old.last_pid(), deadline=20)
    await old.kill()
    await new.resume()
    return new


async def test_bash(node: TestNode, engine: RemoteEngine, images: Images) -> None:
    sandbox = await engine.create(copy("bash"))
    await sandbox.start(spec("bash", "--norc", tty=True, rows=30, columns=100), {**ENV, "PS1": "$ ", "TERM": "xterm"})
    talker = Talker(Client(rows=30, columns=100))
    talker.connect(socket_of(node, sandbox.copy))
    talker.until(b"$ ")
    talker.say(b"stty size; X=$((6*7)); sleep 1001 & tty\n")
    at = talker.until(b"/dev/pts/0")
    assert b"30 100" in talker.output[1]
    for _ in range(3):
        talker.disconnect()
        sandbox = await hop(engine, sandbox, images())
        talker.connect(socket_of(node, sandbox.copy))
        talker.say(b"echo got $X; jobs\n")
        at = talker.until(b"got 42", after=at)
        at = talker.until(b"Running", after=at)
    talker.say(b"fg\n")
    at = talker.until(b"sleep 1001\r\n", after=at)
    talker.say(b"\x1a")
    at = talker.until(b"Stopped", after=at)
    talker.say(b"kill %1; sh -c 'echo be''gun; exec sleep 1002'\n")
    at = talker.until(b"begun", after=at)
    talker.say(b"\x03")
    at = talker.until(b"$ ", after=at)
    talker.say(b"echo after=$?\n")
    at = talker.until(b"after=130", after=at)
    talker.say(b"exit 7\n")
    while talker.code is None:
        talker.pump(1)
    assert talker.code == 7
    talker.leave()
    assert await code(sandbox) == 7
    assert talker.troubles == []


async def test_pipes_with_a_log(node: TestNode, engine: RemoteEngine, images: Images) -> None:
    sandbox = await engine.create(copy("pipes"))
    await sandbox.start(spec("sh", "-c", "echo to you; echo aside >&2; sort; exit 3"), ENV)
    talker = Talker(Client())
    talker.connect(socket_of(node, sandbox.copy))
    talker.say(b"b\n")
    talker.until(b"to you\n")
    talker.disconnect()
    sandbox = await hop(engine, sandbox, images())
    talker.connect(socket_of(node, sandbox.copy))
    talker.say(b"a\n")
    talker.client.end_input()
    talker.until(b"a\nb\n")
    talker.until(b"aside\n", stream=2)
    while talker.code is None:
        talker.pump(1)
    talker.leave()
    assert await code(sandbox) == 3
    log = (job_directory(node.shared, sandbox.copy) / LOG).read_text()
    assert sorted(log.splitlines()) == ["a", "aside", "b", "to you"]


async def test_a_program_that_cannot_be_started(engine: RemoteEngine) -> None:
    sandbox = await engine.create(copy("none"))
    with pytest.raises(StartFailed, match="/no/such/program: No such file") as failure:
        await sandbox.start(spec("/no/such/program", tty=True), ENV)
    assert failure.value.exit_code == 127


async def test_a_dump_shows_out_whoever_is_attached(engine: RemoteEngine, images: Images) -> None:
    sandbox = await engine.create(copy("visited"))
    await sandbox.start(spec("cat", hold=False), ENV)
    for _ in range(3):
        await sandbox.attach()
    await sandbox.dump(images(), deadline=20)
    with pytest.raises(EngineFailed, match="moved"):
        await sandbox.attach()
    await sandbox.resume()
    await sandbox.attach()
    await sandbox.dump(images(), deadline=20)


async def test_short_commands_in_the_foreground(node: TestNode, engine: RemoteEngine, images: Images) -> None:
    """Each is a foreground group of its own: most freezes hit one that has just begun, or just ended."""
    sandbox = await engine.create(copy("short"))
    await sandbox.start(spec("bash", "--norc", tty=True), {**ENV, "PS1": "$ ", "TERM": "dumb"})
    talker = Talker(Client(rows=30, columns=100))
    talker.connect(socket_of(node, sandbox.copy))
    talker.until(b"$ ")
    talker.say(b"for ((i=0;;i++)); do echo n$i; env true; done\n")
    for _ in range(8):
        talker.until(b"\r\nn", after=len(talker.output[1]))
        talker.disconnect()
        sandbox = await hop(engine, sandbox, images())
        talker.connect(socket_of(node, sandbox.copy))
    talker.until(b"\r\nn", after=len(talker.output[1]))
    at = len(talker.output[1])
    while b"$ " not in talker.output[1][at:]:  # Ctrl-C is for the group in the foreground, and that may just have ended
        talker.say(b"\x03")
        talker.pump(0.5)
    shown = bytes(talker.output[1])
    lines = shown[shown.index(b"done\r\n") + 6 : shown.index(b"^C")].decode().split("\r\n")[:-1]
    assert lines == [f"n{number}" for number in range(len(lines))]
    assert talker.troubles == []


async def test_a_line_that_is_being_typed(node: TestNode, engine: RemoteEngine, images: Images) -> None:
    sandbox = await engine.create(copy("typing"))
    await sandbox.start(spec("cat", tty=True), ENV)
    talker = Talker(Client(rows=30, columns=100))
    talker.connect(socket_of(node, sandbox.copy))
    talker.say(b"first\nhel")
    talker.until(b"first\r\n", after=talker.until(b"first\r\n"))
    for piece in (b"lo ", b"wor"):
        talker.disconnect()
        sandbox = await hop(engine, sandbox, images())
        talker.connect(socket_of(node, sandbox.copy))
        talker.say(piece)
    talker.say(b"ld\n")
    at = talker.until(b"world\r\n")
    talker.until(b"hello world\r\n", after=at)
    expected = b"first\r\nhello world\r\n" * 2
    assert sorted(talker.output[1]) == sorted(expected), bytes(talker.output[1])
    assert talker.troubles == []
