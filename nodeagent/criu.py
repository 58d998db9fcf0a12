"""What we ask of the criu command line, and what we make of its answer. It is the shim that runs it, inside the job's namespaces.

Every flag was paid for: ``--manage-cgroups=ignore`` because any other mode puts the job back into the source's cgroup;
``--link-remap --ghost-limit`` for files deleted while open; ``--network-lock nftables`` because iptables need not be there.
"""

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from nodeagent.errors import EngineFailed

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
MINIMUM = (4, 2, 1)
"""Older ones cannot dump inet sockets on kernels from 6.16 on, or do not start at all."""
CHECK_SECONDS = 20.0
STOPPED = "mx-stopped.json"
"""Lies among the images: which processes were stopped before the freeze, so that resuming does not wake them."""
NOISE = ("RLIMIT_NOFILE", "cgroupd: recv req", "Restoring FAILED", "Dumping FAILED")
MEANINGS = {
    "send_fds failed (-22)": "the job uses io_uring, which cannot be moved",
    "External socket is used": "the job is connected by a unix socket to a process that is not part of it",
}
"""What criu's words mean to people who do not know it."""
MEETING = "lazy-pages.socket"
"""Where, among the images, a restore meets the criu that gets its pages."""
SIGNALLED = 128
COMMON = ("--leave-stopped", "--manage-cgroups=ignore", "--file-locks", "--link-remap", "--tcp-established")


def dump_command(pid: int, images: Path, log: Path) -> list[str]:
    """Dumps the tree of ``pid`` and leaves it stopped.

    No network lock: in the node's own network namespace its packet filters outlive a job that has left, and then block the same
    connection when the job comes back. Connections inside the tree need none, as both ends stand still.
    """
    return [
        "criu",
        "dump",
        "-t",
        str(pid),
        "-D",
        str(images),
        *COMMON,
        "--ghost-limit",
        "512M",
        "--network-lock",
        "skip",
        "-o",
        str(log),
    ]


def outside_ipc(argv: list[str]) -> list[str]:
    """The command in an IPC namespace of its own: criu dumps System V objects only where it is not among them itself."""
    return ["unshare", "--ipc", "--", *argv]


def restore_command(images: Path, log: Path) -> list[str]:
    """Restores the tree, stopped, as a child of whoever is pid 1 where it runs."""
    return ["criu", "restore", "-d", "-D", str(images), *COMMON, "-o", str(log)]


def pre_dump_command(pid: int, images: Path, log: Path, parent: str | None) -> list[str]:
    """Dumps memory only, and lets the tree run on; the kernel marks what is written from then on."""
    return ["criu", "pre-dump", "-t", str(pid), "-D", str(images), *_tracking(parent), "-o", str(log)]


def last_dump_command(pid: int, images: Path, log: Path, parent: str) -> list[str]:
    """Dumps like ``dump_command``, of the memory only what was written since the pre-dump ``parent``, seen from ``images``."""
    return [*dump_command(pid, images, log), *_tracking(parent)]


def _tracking(parent: str | None) -> list[str]:
    return ["--track-mem", *(["--prev-images-dir", parent] if parent is not None else [])]


def serve_command(pid: int, images: Path, log: Path) -> list[str]:
    """Dumps like ``dump_command``, but hands out what memory can come later on descriptor 3; tells 4 when all else is written."""
    serving = ("--lazy-pages", "--ps-socket", "3", "--status-fd", "4")
    return [*dump_command(pid, images, log), *serving]


def fetch_command(images: Path, log: Path) -> list[str]:
    """Gets pages by descriptor 3 for a restore that ``restore_lazily_command`` makes."""
    return ["criu", "lazy-pages", "-D", str(images), "--page-server", "--ps-socket", "3", "-o", str(log)]


def restore_lazily_command(images: Path, log: Path) -> list[str]:
    """Restores like ``restore_command``; memory comes by ``fetch_command``, which has to listen at MEETING already."""
    return [*restore_command(images, log), "--lazy-pages"]


def failure(code: int, log: Path) -> str:
    """Why criu ended with the exit code ``code``, in one line; 128 + signal when a signal ended it."""
    if code > SIGNALLED:
        return f"was killed by signal {code - SIGNALLED}"
    return f"ended with {code}: {cause(log)}"


def cause(log: Path) -> str:
    """The first of criu's error lines that says why; the later ones are consequences, and some are there at every run."""
    try:
        lines = log.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return "criu wrote no log: is it installed?"
    errors = [line[line.index("Error (") :].strip() for line in lines if "Error (" in line]
    telling = [line for line in errors if not any(noise in line for noise in NOISE)]
    found = [*telling, *errors, "no error in its log"][0]
    meanings = [meaning for words, meaning in MEANINGS.items() if words in found]
    return ": ".join([*meanings, found])


def write_stopped(images: Path, stopped: list[int]) -> None:
    """Puts the PIDs (of the job's own namespace) among the images."""
    (images / STOPPED).write_text(json.dumps(stopped))


def read_stopped(images: Path) -> list[int]:
    """EngineFailed when they are not there or broken: then other images may be missing too."""
    try:
        pids = json.loads((images / STOPPED).read_text())
        return [int(pid) for pid in pids]
    except (OSError, ValueError, TypeError) as error:
        raise EngineFailed(f"{STOPPED}: bad images: {error}") from error


@dataclass
class Criu:
    """The program on this node."""

    program: str = "criu"
    _version: str = ""

    async def version(self) -> str:
        """Its version, after ``criu check``; asked once. EngineFailed with the reason when it does not work here."""
        if not self._version:
            version = _parse_version(await self._run("--version"))
            await self._run("check")
            self._version = version
        return self._version

    async def check(self, feature: str) -> str:
        """Why this feature of the kernel is not there; "" when it is."""
        try:
            await self._run("check", "--feature", feature)
        except EngineFailed as error:
            return str(error)
        return ""

    async def _run(self, *arguments: str) -> str:
        argument = " ".join(arguments)
        try:
            process = await asyncio.create_subprocess_exec(
                self.program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"PATH": PATH, **{key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ}},
            )
        except OSError as error:
            raise EngineFailed(f"criu: cannot be started: {error.strerror}; install criu {'.'.join(map(str, MINIMUM))}") from error
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                output, _ = await process.communicate()
        except TimeoutError:
            raise EngineFailed(f"criu {argument}: no answer within {CHECK_SECONDS} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        text = output.decode(errors="replace").strip()
        if process.returncode != 0:
            first = text.partition("\n")[0] or "it said nothing"  # what follows are consequences
            raise EngineFailed(f"criu {argument}: ended with {process.returncode}: {first}")
        return text


def _parse_version(text: str) -> str:
    """Of "Version: 4.2.1"; EngineFailed when it is too old."""
    words = [line.removeprefix("Version:").strip() for line in text.splitlines() if line.startswith("Version:")]
    try:
        version = tuple(int(part) for part in words[0].split("."))
    except (IndexError, ValueError):
        raise EngineFailed(f"criu --version: unexpected answer {text[:80]!r}") from None
    if version < MINIMUM:
        raise EngineFailed(f"criu {words[0]}: too old, {'.'.join(map(str, MINIMUM))} is needed")
    return words[0]
