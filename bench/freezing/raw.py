"""On a node: how long a job stands still when criu dumps and restores it on one tmpfs, and nothing else is done.

    python3 raw.py TIMES MEGABYTES idle|writing DIRECTORY FLAGS…

FLAGS are those of the agent's own dump and restore (nodeagent/criu.py), as two JSON lists. Two pid and mount namespaces, made
before the freeze, stand for the two nodes, as the shims do. Prints a JSON list of {"witness_ms", "commands_ms"}. Standard library
only.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
SECONDS = 120
HOLDER = """
import os, time
print(1, flush=True)
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.05)
"""


class Space:
    """Fresh pid and mount namespaces with a process 1 that reaps."""

    def __init__(self) -> None:
        command = [
            "unshare",
            "--pid",
            "--mount",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "python3",
            "-c",
            HOLDER,
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        self.first = int(children[0])

    def enter(self, *command: str) -> list[str]:
        return ["nsenter", "-t", str(self.first), "-m", "-p", "-i", "-u", "--", *command]

    def run(self, *command: str) -> None:
        done = subprocess.run(
            self.enter(*command), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode:
            raise SystemExit(f"{command[0]} {command[1]} ended with {done.returncode}: {(done.stdout + done.stderr)[-300:]}")

    def end(self) -> None:
        os.kill(self.first, signal.SIGKILL)
        self.process.wait()


def start(space: Space, megabytes: str, how: str, witness: Path) -> int:
    """The job's PID in its namespace; it has its memory when this returns."""
    script = (
        f"exec setsid python3 {HERE / 'job.py'} {megabytes} {how} {witness} < /dev/null > /dev/null 2>&1 & echo $! > {witness}.pid"
    )
    space.run("sh", "-c", script)
    wait_for(lambda: witness.exists() and witness.read_text().endswith("\n"))
    time.sleep(0.3)
    return int(Path(f"{witness}.pid").read_text())


def wait_for(condition: "object") -> None:
    end = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        if time.monotonic() > end:
            raise SystemExit("the job does not come up")
        time.sleep(0.01)


def largest_gap(witness: Path, since: float) -> float:
    """Milliseconds."""
    rows = [line.split() for line in witness.read_text().splitlines()]
    return max((float(gap) for when, gap in rows if float(when) > since), default=0.0)


def once(directory: Path, megabytes: str, how: str, dump: list[str], restore: list[str]) -> dict[str, float]:
    images, witness = directory / "images", directory / "witness"
    shutil.rmtree(directory, ignore_errors=True)
    images.mkdir(parents=True)
    source, destination = Space(), Space()
    try:
        pid = start(source, megabytes, how, witness)
        destination.run("sh", "-c", "echo 1000 > /proc/sys/kernel/ns_last_pid")
        began, clock = time.time(), time.monotonic()
        source.run("criu", "dump", "-t", str(pid), "-D", str(images), *dump, "-o", str(directory / "dump.log"))
        destination.run("criu", "restore", "-d", "-D", str(images), *restore, "-o", str(directory / "restore.log"))
        took = (time.monotonic() - clock) * 1000
        time.sleep(0.3)
        return {"witness_ms": largest_gap(witness, began), "commands_ms": round(took, 1)}
    finally:
        source.end()
        destination.end()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    times, megabytes, how, directory, dump, restore = sys.argv[1:]
    print(json.dumps([once(Path(directory), megabytes, how, json.loads(dump), json.loads(restore)) for _ in range(int(times))]))
