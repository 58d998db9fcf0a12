"""What is asked of criu, and what is read from its answers."""

from pathlib import Path

import pytest

from nodeagent.criu import STOPPED, Criu, cause, dump_command, failure, read_stopped, restore_command, write_stopped
from nodeagent.errors import EngineFailed

IMAGES, LOG = Path("/run/mx/images"), Path("/run/mx/log")


def test_commands_keep_the_job_stopped_and_ignore_control_groups() -> None:
    for command in (dump_command(2, IMAGES, LOG), restore_command(IMAGES, LOG)):
        assert {"--leave-stopped", "--manage-cgroups=ignore", "--file-locks", "--link-remap"} < set(command)
        assert command[command.index("-D") + 1] == str(IMAGES)
        assert command[command.index("-o") + 1] == str(LOG)
    assert dump_command(2, IMAGES, LOG)[:4] == ["criu", "dump", "-t", "2"]
    assert "-d" in restore_command(IMAGES, LOG)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "no error in its log"),
        (["(00.1) Warn (criu/a.c:1): odd"], "no error in its log"),
        (["Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self"], "Error (criu/util.c:1): rlimit: Can't setup"),
        (
            [
                "Error (criu/util.c:1): rlimit: Can't setup RLIMIT_NOFILE for self",
                "Error: Could not process rule: No such file",
                "(00.01)      2: Error (criu/sk-unix.c:2): unix: FATAL: Peer 21 unresolved",
                "Error (criu/cr-restore.c:2331): Restoring FAILED.",
            ],
            "Error (criu/sk-unix.c:2): unix: FATAL",
        ),
    ],
)
def test_cause_is_the_first_line_that_tells(tmp_path: Path, lines: list[str], expected: str) -> None:
    log = tmp_path / "log"
    log.write_text("\n".join(lines))
    assert cause(log).startswith(expected)
    assert "no log" in cause(tmp_path / "missing")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pie: 2: Error (criu/pie/parasite.c:588): send_fds failed (-22)", "the job uses io_uring, which cannot be moved: Error ("),
        ("Error (criu/sk-unix.c:874): unix: External socket is used. Consider", "the job is connected by a unix socket to"),
    ],
)
def test_cause_says_what_is_meant(tmp_path: Path, line: str, expected: str) -> None:
    log = tmp_path / "log"
    log.write_text(line)
    assert cause(log).startswith(expected)
    assert line.rpartition("Error (")[2] in cause(log)


def test_failure_tells_a_signal_from_an_exit_code(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("Error (criu/cr-dump.c:1): no way")
    assert failure(137, log) == failure(137, tmp_path / "missing") == "was killed by signal 9"
    assert failure(1, log) == "ended with 1: Error (criu/cr-dump.c:1): no way"


def test_stopped_processes_travel_with_the_images(tmp_path: Path) -> None:
    write_stopped(tmp_path, [4, 5])
    assert read_stopped(tmp_path) == [4, 5]
    for broken in ("", "{", "[null]", "3"):
        (tmp_path / STOPPED).write_text(broken)
        with pytest.raises(EngineFailed, match="bad images"):
            read_stopped(tmp_path)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('[ "$1" = --version ] && echo "Version: 3.17.1"', "too old"),
        ("echo Segmentation fault", "unexpected answer"),
        ('[ "$1" = --version ] && echo "Version: 4.2.1" || { echo "Error (criu/x.c): no veth"; echo more; exit 1; }', "no veth$"),
    ],
)
async def test_why_criu_does_not_work(tmp_path: Path, script: str, message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        await Criu(fake(tmp_path, script)).version()


async def test_version_is_asked_once(tmp_path: Path) -> None:
    criu = Criu(fake(tmp_path, f'echo x >> {tmp_path}/calls; echo "Version: 4.3"'))
    assert await criu.version() == "4.3"
    assert await criu.version() == "4.3"
    assert (tmp_path / "calls").read_text().count("x") == 2, "--version and check"


async def test_missing_criu_is_named() -> None:
    with pytest.raises(EngineFailed, match=r"install criu 4\.2\.1"):
        await Criu("/no/criu").version()


def fake(tmp_path: Path, script: str) -> str:
    path = tmp_path / "criu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)
