"""Jobs that prove by what they write that no instruction of theirs was lost or run twice."""

import asyncio
import time
from collections.abc import Callable

from nodeagent.engine import Copy, Engine, Sandbox
from nodeagent.jobdir import LOG, job_directory
from tests.engine_contract import started
from tests.system.testnode import TestNode

PATIENCE = 30.0
COUNTER = ("python3", "-c", "import time, itertools\nfor i in itertools.count(): print(i, flush=True); time.sleep(0.002)")


async def eventually(condition: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Waits until it holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.005)


class Witness:
    """A job that prints 0, 1, 2, … one a line."""

    def __init__(self, node: TestNode, copy: Copy, *command: str) -> None:
        self.copy = copy
        self._command = command or COUNTER
        self.log = job_directory(node.shared, copy) / LOG

    async def start(self, engine: Engine) -> Sandbox:
        """Starts it afresh."""
        self.log.unlink(missing_ok=True)
        return await started(engine, self.copy, *self._command)

    def numbers(self) -> list[int]:
        """All whole lines; the test fails when they are not 0, 1, 2, …"""
        text = self.log.read_text() if self.log.exists() else ""
        lines = text[: text.rfind("\n") + 1].split()
        assert all(line.isdecimal() for line in lines), f"it said: {text[-300:]}"
        numbers = [int(line) for line in lines]
        assert numbers == list(range(len(numbers))), "a number is missing or came twice"
        return numbers

    async def goes_on(self, steps: int = 5) -> int:
        """Waits for so many more numbers; how many there are then."""
        wanted = len(self.numbers()) + steps
        await eventually(lambda: len(self.numbers()) >= wanted)
        return wanted
