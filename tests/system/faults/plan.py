"""What may go wrong where: the product of modes, boundaries and faults, and a shuffled sample of it. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from tests.moments import DESTINATION, POST_COPY_DESTINATION, POST_COPY_SOURCE, SOURCE, STOP_ONLY

REFUSED = (
    ("source", "leave.refused"),
    ("source", "Resumed.before"),
    ("source", "Resumed.after"),
    ("destination", "Refused.before"),
    ("destination", "Refused.after"),
    ("destination", "arrive.refused"),
)
"""Moments of a move that the destination refuses."""

DAEMONS = ("source", "destination", "reconciler", "etcd")
ANYWHERE = (
    *(f"kill {daemon}" for daemon in DAEMONS),
    *(f"stop {daemon}" for daemon in DAEMONS),
    "cut",
    "half-open to source",
    "half-open to destination",
    "job exits",
    "job forks",
    "kill job",
)
"""Faults that may strike at every boundary."""
LONG_STOP = 10.0
CRIU = {
    "Freezing.after": ("kill source criu", "stop source criu"),
    "Restoring.after": ("kill destination criu", "stop destination criu"),
    "Serving.after": ("kill source criu", "stop source criu"),
    "Fetching.after": ("kill source criu", "stop source criu", "kill destination criu", "stop destination criu"),
}
"""Where criu runs right after the boundary; the last two in moves by post-copy only."""
NO_SPACE = ("Connecting.before", "leave.connected", "Receiving.after", "arrive.received", "Restoring.after")
FLIPS = (40, 400, 5_000, 100_000, 1_000_000, 3_000_000)
"""Byte numbers on the data channel: in the hello (or the handshake), in the first and in later images, near the end."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One move and what happens to it: ``fault`` strikes when ``side`` is at ``moment``."""

    mode: str
    side: str
    moment: str
    fault: str
    seconds: float = 0.0
    """How long what lasts (stop, cut, no space) lasts."""
    flip: int | None = None
    """Also this byte of the stream arrives changed."""
    refused: bool = False
    """Also criu is killed at the destination, so that the destination refuses the job."""
    deadline: float = 20.0
    """Of the Migration."""

    @property
    def label(self) -> str:
        also = f" flip@{self.flip}" if self.flip is not None else " refused" if self.refused else ""
        lasting = f" {self.seconds:.1f}s" if self.seconds else ""
        return f"{self.mode} {self.side}:{self.moment} {self.fault}{lasting}{also}"


def product(random: Random, modes: tuple[str, ...] = ("stop",), *, stop: float = LONG_STOP) -> list[Trial]:
    """All of it, shuffled. ``stop`` is how long a stopped process stands."""
    trials = [trial for mode in modes for trial in _of_mode(mode, random, stop)]
    random.shuffle(trials)
    return trials


def _of_mode(mode: str, random: Random, stop: float) -> Iterator[Trial]:
    lazy = mode == "post-copy"
    source = [*(moment for moment in SOURCE if not (lazy and moment in STOP_ONLY)), *(POST_COPY_SOURCE if lazy else ())]
    destination = [*DESTINATION, *(POST_COPY_DESTINATION if lazy else ())]
    boundaries = [*(("source", moment) for moment in source), *(("destination", moment) for moment in destination)]
    for side, moment in boundaries:
        faults = [*ANYWHERE, *CRIU.get(moment, ())]
        if moment in NO_SPACE:
            faults.append("no space")
        for fault in faults:
            yield Trial(mode, side, moment, fault, _lasts(fault, random, stop), deadline=random.choice((6.0, 20.0)))
    for side, moment in REFUSED:
        for fault in ANYWHERE:
            yield Trial(mode, side, moment, fault, _lasts(fault, random, stop), refused=True)
    for flip in FLIPS:
        yield Trial(mode, "source", "Connecting.after", "flip", flip=flip + random.randrange(40))


def _lasts(fault: str, random: Random, stop: float) -> float:
    word = fault.split()[0]
    if word == "stop":
        return stop
    if word in ("cut", "half-open"):
        return random.choice((1.0, stop, 2 * stop))
    return stop / 2 if fault == "no space" else 0.0
