"""Clears a directory away when the process that fills it is killed.

A killed process cannot clean up, and its children are still at it. So a small shell waits beside it, on a pipe that says "done" or
just ends. It holds the shelf's lock meanwhile, in a session of its own so that Ctrl-C does not reach it.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS = 30
# What is being written to while it is removed is not removed at once, hence the repetition.
_WAIT = 'read -r word && exit; n=0; while [ -e "$1" ] && [ $n -lt 150 ]; do rm -rf -- "$1" 2>/dev/null; n=$((n+1)); sleep 0.2; done'


@contextmanager
def cleared_on_death(directory: Path, lock: int) -> Iterator[None]:
    """The directory is gone soon after this process dies within. How the block ends otherwise is the caller's matter."""
    with subprocess.Popen(
        ["sh", "-c", _WAIT, "mx-janitor", str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(lock,),
    ) as waiting:
        assert waiting.stdin is not None
        try:
            yield
        finally:
            waiting.stdin.write(b"done\n")
            waiting.stdin.close()
            waiting.wait(_SECONDS)
