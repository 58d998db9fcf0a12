"""Pre-copy: the memory goes ahead while the job runs, round by round, each with what was written since the one before.

Both ends keep the same directories: ``round-1``, ``round-2``, … below the images of the last dump, each of which names the one
before it as its parent, as criu does. Nothing is frozen for longer than criu takes to look, and nothing is decided: whatever goes
wrong in a round ends the move with the job running on at the source.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nodeagent.case import Case
from nodeagent.channel import Channel
from nodeagent.deadline import Deadline
from nodeagent.engine import Sandbox
from nodeagent.errors import MoveFailed
from nodeagent.frames import Abort, End, Round
from nodeagent.space import Promise, make_fresh

log = logging.getLogger(__name__)

MOST_ROUNDS = 8
SHRINKS = 0.8
"""A round that is not smaller than this share of the one before will not be followed by a smaller one either."""
SHORT = 0.2
"""Seconds of freeze that are short enough for a job without a budget."""
FIXED = 0.1
"""Seconds that a freeze takes beside memory."""
PARENT = "parent"
"""criu's name for the link to the images of the round before."""


@dataclass(frozen=True, slots=True)
class Passed:
    """One round that was sent."""

    bytes: int
    seconds: float


def worth_another(rounds: Sequence[Passed], budget: float | None) -> bool:
    """Whether one more round is likely to shorten the freeze, and that is wanted. ``budget`` in seconds."""
    if not rounds:
        return True
    if len(rounds) >= MOST_ROUNDS:
        return False
    rate = max(each.bytes / max(each.seconds, 1e-3) for each in rounds)
    if FIXED + rounds[-1].bytes / max(rate, 1.0) <= (budget or SHORT):
        return False
    return len(rounds) == 1 or rounds[-1].bytes < SHRINKS * rounds[-2].bytes


def directory_of(images: Path, number: int) -> Path:
    """Of one round, which are counted from 1."""
    return images / f"round-{number}"


def parent_of(number: int) -> str:
    """The directory of the round before this one, seen from it."""
    return f"../round-{number - 1}"


async def send_rounds(case: Case, sandbox: Sandbox, channel: Channel, images: Path, deadline: Deadline) -> str:
    """Sends rounds until another is not worth it; returns the parent of the last dump, seen from ``images``."""
    clock, budget = case.parts.clock, case.held.spec.migration.freeze_budget
    rounds: list[Passed] = []
    while worth_another(rounds, budget):
        number = len(rounds) + 1
        deadline.doing(f"round {number} of its memory was sent")
        began = clock.monotonic()
        sent = await _send_round(case, sandbox, channel, directory_of(images, number), number, deadline)
        rounds.append(Passed(sent, clock.monotonic() - began))
        log.info("job %s: round %d: %d bytes in %.0f ms", case.key, number, sent, rounds[-1].seconds * 1000)
        await case.parts.hooks.at("leave.round", sandbox.copy)
    await channel.send(Round(number=0), timeout=case.parts.config.timing.answer)
    return f"round-{len(rounds)}"


async def _send_round(case: Case, sandbox: Sandbox, channel: Channel, directory: Path, number: int, deadline: Deadline) -> int:
    """Bytes sent."""
    timeout = case.parts.config.timing.answer
    await asyncio.to_thread(make_fresh, directory)
    await channel.send(Round(number=number), timeout=timeout)
    sender = channel.send_images(directory)
    sending = asyncio.create_task(sender.run(), name=f"send round {number} of {case.key}")
    try:
        await sandbox.pre_dump(directory, parent_of(number) if number > 1 else None, deadline=deadline.left)
        sender.dumped()
        files = await sending
    except BaseException:
        sender.end_early()  # at the end of a frame, so that an abort can follow
        await asyncio.wait({sending}, timeout=0.5)
        raise
    finally:
        sending.cancel()
        await asyncio.wait({sending})
    await channel.send(End(files=files, last_pid=0, frozen_for=0.0, cpu_seconds=0.0), timeout=timeout)
    return sender.bytes


async def receive_rounds(case: Case, channel: Channel, images: Path, promise: Promise, deadline: Deadline) -> int:
    """All rounds; the images of the last dump follow. Returns the bytes that came."""
    came = number = 0
    while True:
        deadline.doing(f"round {number + 1} of its memory was received")
        message = await channel.receive(timeout=None)
        if isinstance(message, Abort):
            raise MoveFailed(f"the source gave up: {message.reason}")
        if not isinstance(message, Round) or message.number not in (0, number + 1):
            raise MoveFailed(f"data channel: {message.kind} where round {number + 1} was expected")
        if message.number == 0:
            break
        number += 1
        directory = directory_of(images, number)
        directory.mkdir()
        receiver = channel.receive_images(directory, most=case.parts.room.most(promise) - came)
        before = came
        promise.came = lambda incoming=receiver, earlier=before: earlier + incoming.bytes  # type: ignore[misc]
        await receiver.run()
        came += receiver.bytes
        if number > 1:
            (directory / PARENT).symlink_to(parent_of(number))
        await case.parts.hooks.at("arrive.round", case.held.copy_here)
    if number:
        (images / PARENT).symlink_to(f"round-{number}")
    return came
