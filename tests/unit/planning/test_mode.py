"""Which way of moving is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crds.job import MigrationMode
from reconciler.planning.mode import BY_PREFERENCE, IDLE, ModeChoice, ModeRequest, NoMode, choose_mode, predict
from reconciler.planning.types import MoveCost

AUTO, STOP, PRE, POST = MigrationMode.AUTO, MigrationMode.STOP, MigrationMode.PRE_COPY, MigrationMode.POST_COPY
GIGA, MEGA = 1 << 30, 1 << 20
COSTS = {STOP: MoveCost(0.1, 500e6), PRE: MoveCost(0.1, 500e6), POST: MoveCost(0.05, 10e9)}
NO_PRE = {PRE: "node/n2 cannot do it"}


def request(wish: MigrationMode = AUTO, memory: int = GIGA, cpu: float = 0.0, **more: object) -> ModeRequest:
    return ModeRequest(wish, memory, cpu, **{"costs": COSTS, "lacking": NO_PRE, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(), STOP),
        (request(budget=5.0), STOP),
        (request(budget=1.0), POST),
        (request(budget=1.0, lacking={}), PRE),
        (request(budget=1.0, cpu=1.0), STOP),
        (request(budget=1.5, cpu=1.0, lacking={}), PRE),
        (request(budget=1.0, cpu=1.0, lacking={}, written=0.1), PRE),
        (request(budget=1.0, lacking={}, written=0.9), POST),
        (request(budget=0.01), POST),
        (request(budget=0.01, cpu=IDLE), POST),
        (request(budget=0.01, cpu=IDLE + 0.01), STOP),
        (request(POST, cpu=1.0), POST),
        (request(STOP, budget=0.01), STOP),
        (request(POST, budget=1.0, hard=True), POST),
    ],
)
def test_way(asked: ModeRequest, expected: MigrationMode) -> None:
    choice = choose_mode(asked)
    assert isinstance(choice, ModeChoice), choice
    assert choice.mode == expected
    assert choice.predicted_ms == predict(expected, asked)
    assert f"{expected}: " in choice.reason


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (request(budget=0.1, hard=True), ["100 ms", "stop 2248 ms", "post-copy 157 ms", "pre-copy: node/n2 cannot"]),
        (request(budget=0.1, hard=True, cpu=1.0), ["post-copy: for mostly idle jobs only, and this one wants 1 cores"]),
        (request(STOP, budget=1.0, hard=True), ["stop was asked for, 2248 ms predicted", "1000 ms"]),
    ],
)
def test_over_a_hard_budget(asked: ModeRequest, words: list[str]) -> None:
    no = choose_mode(asked)
    assert isinstance(no, NoMode)
    assert no.over_budget
    for word in words:
        assert word in no.message


def test_a_way_that_a_node_lacks_is_refused_with_the_node_named() -> None:
    no = choose_mode(request(PRE))
    assert no == NoMode("pre-copy is not possible: node/n2 cannot do it")


def test_reasons_are_sentences_with_figures() -> None:
    fits = choose_mode(request(memory=100 * MEGA, budget=0.5))
    assert isinstance(fits, ModeChoice)
    assert fits.reason == "stop: 310 ms predicted, budget 500 ms"
    passed_over = choose_mode(request(budget=0.5))
    assert isinstance(passed_over, ModeChoice)
    assert passed_over.reason == "post-copy: 157 ms predicted, budget 500 ms (stop 2248 ms)"


@given(
    memory=st.integers(0, 64 * GIGA),
    cpu=st.floats(0, 8),
    budget=st.none() | st.floats(0.001, 60),
    hard=st.booleans(),
    lacking=st.sets(st.sampled_from([PRE, POST])),
)
def test_auto_keeps_its_promises(memory: int, cpu: float, budget: float | None, hard: bool, lacking: set[MigrationMode]) -> None:
    asked = request(memory=memory, cpu=cpu, budget=budget, hard=hard, lacking=dict.fromkeys(lacking, "no"))
    choice = choose_mode(asked)
    fits = [m for m in BY_PREFERENCE if m not in lacking and (m != POST or cpu <= IDLE)]
    fits = [m for m in fits if budget is None or predict(m, asked) <= budget * 1000]
    if isinstance(choice, NoMode):
        assert hard and not fits
        return
    assert choice.mode not in lacking
    assert choice.mode != POST or (cpu <= IDLE and budget is not None)
    assert choice.mode == fits[0] if fits else not hard


@given(memory=st.integers(0, 64 * GIGA), more=st.integers(0, GIGA), cpu=st.floats(0, 8))
def test_more_memory_never_freezes_shorter(memory: int, more: int, cpu: float) -> None:
    for mode in BY_PREFERENCE:
        small, large = (predict(mode, request(memory=size, cpu=cpu)) for size in (memory, memory + more))
        assert small <= large


FULL = {STOP: "node/n1 has 20Mi of memory free, its images take 300Mi", PRE: "the same"}


def test_a_node_too_full_for_images_is_left_by_post_copy_however_busy_the_job_is() -> None:
    for budget in (None, 5.0):
        choice = choose_mode(request(cpu=1.0, lacking=FULL, budget=budget))
        assert isinstance(choice, ModeChoice) and choice.mode == POST
    assert "20Mi of memory free" in choose_mode(request(cpu=1.0, lacking=FULL)).reason  # type: ignore[union-attr]
    nothing = choose_mode(request(lacking={**FULL, POST: "node/n2 cannot do it"}))
    assert isinstance(nothing, NoMode) and not nothing.over_budget and "post-copy: node/n2 cannot do it" in nothing.message
