"""The programs of other people that build layers, behind a seam: tests put another workshop in their place.

Whatever becomes of the builder, nothing of its work is left: each program runs in a mount namespace of its own, so that its mounts
end with it; it gets SIGTERM when the builder dies; and it inherits the shelf's lock, which is held until it is gone.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol

from clip.errors import NO_BUILDER, ImageError
from clip.failures import explain
from clip.progress import Report

_BUILD_SECONDS = 1200
MMDEBSTRAP = "mmdebstrap"
EPOCH = 1735689600
"""SOURCE_DATE_EPOCH of every build: an image's content does not tell when it was built."""


class Workshop(Protocol):
    """Runs programs. All raise ImageError, with a reason, when a program fails."""

    def check(self) -> None:
        """ImageError where Debian's parts cannot be built at all."""
        ...

    def debian(self, command: Sequence[str], report: Report, lock: int) -> None:
        """mmdebstrap, to its end; its phases are reported. ``lock`` is inherited by it."""
        ...

    def run(self, command: Sequence[str], seconds: float) -> str:
        """Another program; answers what it printed."""
        ...

    def stop(self) -> None:
        """Called from another thread: ends mmdebstrap, which then fails."""
        ...


class HostWorkshop:
    """The building machine's own programs, in the caller's network or, given its descriptor, in the network of a namespace."""

    def __init__(self, network: int | None = None) -> None:
        self._network = network
        self._running: subprocess.Popen[str] | None = None

    @classmethod
    def staying(cls) -> "HostWorkshop":
        """Goes on using the network that the calling thread is in now, whichever it enters later: mxctl enters that of a lab."""
        return cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def _line(self, *command: str) -> list[str]:
        entering = () if self._network is None else ("nsenter", f"--net=/proc/self/fd/{self._network}", "--")
        return [*entering, *command]

    def _descriptors(self, *more: int) -> tuple[int, ...]:
        return more if self._network is None else (*more, self._network)

    def stop(self) -> None:
        running = self._running
        if running is not None:
            running.terminate()

    def check(self) -> None:
        if os.geteuid() != 0:
            raise ImageError("node image: building needs root; run it with sudo", NO_BUILDER)
        if shutil.which(MMDEBSTRAP) is None:
            raise ImageError(
                f"node image: {MMDEBSTRAP} is missing here; apt-get install {MMDEBSTRAP}, or run mxctl image build where it is",
                NO_BUILDER,
            )

    def debian(self, command: Sequence[str], report: Report, lock: int) -> None:
        self.check()
        said: list[str] = []
        with subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig",
                "TERM",
                "--",
                *self._line("unshare", "--mount", "--", "timeout", f"{_BUILD_SECONDS}", *command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=_environment(),
            pass_fds=self._descriptors(lock),
        ) as running:
            assert running.stderr is not None
            self._running = running
            try:
                for line in running.stderr:
                    said.append(line.strip())
                    if line.startswith("I: ") and line.rstrip().endswith("...") and "()" not in line:  # others are asides
                        report(line[3:].strip().removesuffix("..."))
            except BaseException:  # Ctrl-C: it must be gone before its directory is removed
                running.terminate()
                raise
            finally:
                self._running = None
        if running.returncode:
            raise explain(command[0], running.returncode, said)

    def run(self, command: Sequence[str], seconds: float) -> str:
        words = " ".join(command[:4])
        try:
            done = subprocess.run(
                self._line(*command),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                env=_environment(),
                pass_fds=self._descriptors(),
                check=False,
            )
        except FileNotFoundError as error:
            raise ImageError(f"node image: the program {command[0]} is missing; run scripts/setup as root") from error
        except subprocess.TimeoutExpired as error:
            raise ImageError(f"node image: {words} did not end in {seconds:.0f} s; check the network, try again") from error
        if done.returncode:
            raise explain(words, done.returncode, (done.stderr or done.stdout).splitlines())
        return done.stdout + done.stderr


def _environment() -> dict[str, str]:
    """English messages, as ``failures`` reads them; one date for all that is dated; Python's hashes in one order."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "SOURCE_DATE_EPOCH": str(EPOCH), "PYTHONHASHSEED": "0"}


HOST = HostWorkshop()
