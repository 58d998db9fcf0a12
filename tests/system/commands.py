"""Runs mxctl as a person would: a process of its own, in the clone, with a configuration file of the test's own."""

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
SECONDS = 120
# The lines people type begin with sudo; who is root already may have none.
_SUDO = 'sudo() { "$@"; }\n'


@dataclass(frozen=True, slots=True)
class Said:
    """What a command wrote, and how it ended."""

    code: int
    out: str
    err: str


class Terminal:
    """A shell in the clone."""

    def __init__(self, config: Path) -> None:
        self._env = {**os.environ, "MXCONFIG": str(config), "COLUMNS": "200"}

    def run(self, script: str, *, seconds: float = SECONDS) -> Said:
        """A piece of bash; the exit code is that of its last command."""
        return self._do(["bash", "-c", _SUDO + script], seconds)

    def mxctl(self, *words: str, seconds: float = SECONDS, ok: bool = True) -> str:
        """One mxctl command; its output. Fails the test when it does not end with 0, unless ``ok`` is False."""
        said = self._do([str(PROJECT / ".venv/bin/mxctl"), *words], seconds)
        assert said.code == 0 or not ok, f"mxctl {' '.join(words)}: {said.code}\n{said.out}{said.err}"
        return said.out

    @contextmanager
    def beside(self, *words: str) -> Iterator[None]:
        """A mxctl command that runs as long as the block does; then it is interrupted."""
        command = [str(PROJECT / ".venv/bin/mxctl"), *words]
        null = subprocess.DEVNULL
        with subprocess.Popen(command, cwd=PROJECT, env=self._env, stdin=null, stdout=null, stderr=null) as running:
            try:
                yield
            finally:
                running.send_signal(signal.SIGINT)
                running.wait(SECONDS)

    def _do(self, command: Sequence[str], seconds: float) -> Said:
        done = subprocess.run(
            command,
            cwd=PROJECT,
            env=self._env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return Said(done.returncode, done.stdout, done.stderr)
