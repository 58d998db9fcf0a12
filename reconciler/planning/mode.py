"""How the memory of a job gets from node to node: which way of moving fits the freeze it may cost. Pure.

stop is the plain way. pre-copy and post-copy need the feature of that name on both nodes. post-copy freezes shortest, but the job
then waits for its memory piece by piece, and is lost if the node it left is lost before all has come: so nobody gets it unasked but
a job that is mostly idle and has a budget that nothing else fits, or one that must leave a node which is too full for its images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crds.job import MigrationMode
from reconciler.planning.types import MoveCost

STOP, PRE_COPY, POST_COPY = MigrationMode.STOP, MigrationMode.PRE_COPY, MigrationMode.POST_COPY
DEFAULTS: Mapping[MigrationMode, MoveCost] = {
    STOP: MoveCost(fixed=0.06, bandwidth=500e6),
    PRE_COPY: MoveCost(fixed=0.1, bandwidth=500e6),
    POST_COPY: MoveCost(fixed=0.05, bandwidth=10e9),
}
"""Measured with criu 4.2.1 on one machine; replaced by what the cluster itself sees."""
IDLE = 0.2
"""Cores up to which a job counts as mostly idle."""
HOT = (0.02, 0.5)
"""Share of its memory that a job writes while a round of pre-copy passes: of one that does nothing, of one that uses a core."""
BY_PREFERENCE = (STOP, PRE_COPY, POST_COPY)


@dataclass(frozen=True, slots=True)
class ModeRequest:
    """One job that is to be moved. Seconds, bytes, cores; ``None`` for ``budget``: however long it takes."""

    wish: MigrationMode
    memory: int
    cpu: float
    budget: float | None = None
    hard: bool = False
    written: float = 0.0
    """As ``JobView.written``."""
    lacking: Mapping[MigrationMode, str] = field(default_factory=dict)
    """Why a way is not possible between these two nodes."""
    costs: Mapping[MigrationMode, MoveCost] = field(default_factory=lambda: DEFAULTS)


@dataclass(frozen=True, slots=True)
class ModeChoice:
    """How, how long a freeze is expected (milliseconds), and why so."""

    mode: MigrationMode
    predicted_ms: float
    reason: str


@dataclass(frozen=True, slots=True)
class NoMode:
    """It cannot be moved so. ``over_budget``: it could, but not within the budget."""

    message: str
    over_budget: bool = False


def hot(cpu: ArrayLike, written: ArrayLike) -> NDArray[np.float64]:
    """Share of a job's memory that a pre-copy leaves for the freeze: as the last time, else guessed by the cores it uses."""
    guessed = HOT[0] + (HOT[1] - HOT[0]) * np.minimum(1.0, cpu)
    return np.where(np.asarray(written) > 0, np.minimum(1.0, written), guessed)


def predict(mode: MigrationMode, request: ModeRequest) -> float:
    """Milliseconds of freeze that are expected."""
    moved = request.memory
    if mode == PRE_COPY:
        moved = int(moved * hot(request.cpu, request.written))
    return round(request.costs.get(mode, DEFAULTS[mode]).freeze(moved) * 1000, 1)


def choose_mode(request: ModeRequest) -> ModeChoice | NoMode:
    """The way that was asked for, or (auto) the plainest that fits the budget, or the shortest if a soft budget fits none."""
    if request.wish != MigrationMode.AUTO:
        return _asked_for(request)
    unfit = _unfit(request)
    predicted = {mode: predict(mode, request) for mode in BY_PREFERENCE if mode not in unfit}
    if not predicted:
        return NoMode("no way of moving is possible: " + "; ".join(f"{m}: {why}" for m, why in unfit.items()))
    if request.budget is None:
        mode = next(iter(predicted))
        why = f" (stop: {request.lacking[STOP]})" if STOP in request.lacking else ""
        return ModeChoice(mode, predicted[mode], f"{mode}: {_ms(predicted[mode])} predicted, no budget{why}")
    limit = request.budget * 1000
    fits = next((mode for mode in predicted if predicted[mode] <= limit), None)
    if fits is not None:
        return ModeChoice(fits, predicted[fits], f"{_fits(fits, predicted, limit)}{_longer(fits, predicted)}")
    every = "; ".join([*(f"{mode} {_ms(value)}" for mode, value in predicted.items()), *(f"{m}: {w}" for m, w in unfit.items())])
    if request.hard:
        return NoMode(f"no way of moving fits its budget of {_ms(limit)}: {every}", over_budget=True)
    mode = min(predicted, key=lambda mode: predicted[mode])
    return ModeChoice(mode, predicted[mode], f"{mode}: the shortest, though over the budget of {_ms(limit)}: {every}")


def _asked_for(request: ModeRequest) -> ModeChoice | NoMode:
    mode = request.wish
    if mode in request.lacking:
        return NoMode(f"{mode} is not possible: {request.lacking[mode]}")
    value = predict(mode, request)
    if request.budget is None:
        return ModeChoice(mode, value, f"{mode}: asked for, {_ms(value)} predicted")
    limit = request.budget * 1000
    if value > limit and request.hard:
        return NoMode(f"{mode} was asked for, {_ms(value)} predicted, which is over its budget of {_ms(limit)}", over_budget=True)
    return ModeChoice(mode, value, f"{mode}: asked for, {_ms(value)} predicted, budget {_ms(limit)}")


def _unfit(request: ModeRequest) -> dict[MigrationMode, str]:
    """Ways that auto does not take, and why."""
    unfit = dict(request.lacking)
    if POST_COPY not in unfit and request.cpu > IDLE and STOP not in unfit:
        unfit[POST_COPY] = f"for mostly idle jobs only, and this one wants {request.cpu:.2g} cores"
    return unfit


def _fits(mode: MigrationMode, predicted: Mapping[MigrationMode, float], limit: float) -> str:
    return f"{mode}: {_ms(predicted[mode])} predicted, budget {_ms(limit)}"


def _longer(mode: MigrationMode, predicted: Mapping[MigrationMode, float]) -> str:
    """What was passed over."""
    before = [f"{other} {_ms(predicted[other])}" for other in BY_PREFERENCE[: BY_PREFERENCE.index(mode)] if other in predicted]
    return f" ({', '.join(before)})" if before else ""


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms"
