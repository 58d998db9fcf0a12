"""Rollouts as plans: whatever machines do, never too many are away, nothing goes on after a failure, and it comes to an end."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from crds.assignment import Assignment
from crds.power import PowerPhase
from crds.rollout import UNDER_WAY, NodeUpdate, RolloutPhase, UpdateStep
from crds.states import UPDATE, may_follow
from reconciler.planning.rollout import Change, NodeView, Restart, RolloutPlan, Rules, natural, plan_rollout

V1, V2 = Assignment(image="i", revision="v1"), Assignment(image="i", revision="v2")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUND = 40.0  # seconds
RULES = Rules(name="r", uid="u", deadline=100.0, drain_deadline=100.0)


@dataclass(frozen=True)
class Nature:
    """How a machine behaves. ``drains``: rounds until its jobs have left; ``boots``: rounds until it is up, by revision."""

    drains: int
    boots: dict[str, int]
    power: PowerPhase = PowerPhase.DONE


NEVER = 99
natures = st.builds(
    Nature,
    drains=st.sampled_from([0, 1, 2, NEVER]),
    boots=st.fixed_dictionaries({"v1": st.sampled_from([0, 1, NEVER]), "v2": st.sampled_from([0, 1, 2, NEVER])}),
    power=st.sampled_from([PowerPhase.DONE, PowerPhase.DONE, PowerPhase.FAILED]),
)


class Rack:
    """Nodes that do what plans say, round by round."""

    def __init__(self, natures: list[Nature], rules: Rules) -> None:
        self.rules = rules
        self.natures = {f"n{n}": nature for n, nature in enumerate(natures)}
        self.nodes = {
            name: NodeView(name, boot_id="0", image="v1", booted=V1.digest, assigned=V1, good=V1, wanted=V2)
            for name in self.natures
        }
        self.due: dict[str, int] = {}
        self.failed = False
        self.boots = 0

    def round(self) -> RolloutPlan:
        plan = plan_rollout(self.rules, list(self.nodes.values()))
        for change in plan.changes:
            self._apply(change)
        self._check(plan)
        self._pass_time()
        return plan

    def _apply(self, change: Change) -> None:
        node = self.nodes[change.node]
        old = node.update
        if change.begin:
            assert not self.failed, "a node was begun after a failure"
            assert not self.rules.paused
        else:
            assert old is not None
            assert may_follow(UPDATE, old.step, change.step), f"{old.step} -> {change.step}"
        if change.restart:
            assert not node.occupants, "a node was restarted under its jobs"
        same = old is not None and not change.begin and old.step == change.step
        update = NodeUpdate(
            rollout="r", uid="u", created=NOW, since=NOW,
            attempt=self.rules.attempt if change.begin or old is None else old.attempt,
            step=change.step, target=change.target, before=change.before,
            boot_id=node.boot_id if change.begin or old is None else old.boot_id,
            restarts=(old.restarts if old and same else 0) + change.restart,
            undo=self.rules.undo if change.begin or old is None else old.undo,
            failed=change.failed, message=change.message,
        )  # fmt: skip
        nature = self.natures[change.node]
        node = replace(node, update=update, age=node.age if same else 0.0, assigned=change.assign or node.assigned)
        if not same:
            node = replace(node, restart=None)
            if change.step == UpdateStep.DRAINING:
                node = replace(node, occupants=("job/w",) if nature.drains else ())
                self.due[change.node] = nature.drains
        if change.restart:
            node = replace(node, restart=Restart(nature.power, age=0.0))
            if nature.power == PowerPhase.DONE:
                assert node.assigned is not None
                node = replace(node, ready=False, heard=False, boot_id="")
                self.due[change.node] = nature.boots[node.assigned.revision]
        self.nodes[change.node] = node
        self.failed = self.failed or change.failed

    def _check(self, plan: RolloutPlan) -> None:
        away = [n for n in self.nodes.values() if (n.update and n.update.step in UNDER_WAY) or not n.ready]
        stuck = [n for n in away if n.update and n.update.step == UpdateStep.STUCK]
        assert len(away) <= self.rules.max_unavailable, f"away at once: {[n.name for n in away]}"
        assert not stuck or self.failed
        assert plan.phase != RolloutPhase.COMPLETE or not plan.away

    def _pass_time(self) -> None:
        for name, node in self.nodes.items():
            aged = replace(node, age=node.age + ROUND)
            if node.restart is not None:
                aged = replace(aged, restart=replace(node.restart, age=node.restart.age + ROUND))
            left = self.due.get(name)
            if left is not None and left <= 0:
                del self.due[name]
                aged = self._happens(aged)
            elif left is not None:
                self.due[name] = left - 1 if left < NEVER else left
            if aged.ready and aged.assigned and aged.booted == aged.assigned.digest and aged.heard:
                aged = replace(aged, good=aged.assigned)
            self.nodes[name] = aged

    def _happens(self, node: NodeView) -> NodeView:
        if not node.heard:
            assert node.assigned is not None
            self.boots += 1
            return replace(
                node, ready=True, heard=True, boot_id=f"b{self.boots}", image=node.assigned.revision, booted=node.assigned.digest
            )
        return replace(node, occupants=())

    def run(self, rounds: int = 200) -> RolloutPlan:
        plan = self.round()
        for _ in range(rounds):
            if not plan.away and not plan.changes:
                return plan
            plan = self.round()
        raise AssertionError(f"no end: {plan}")


@given(st.lists(natures, min_size=1, max_size=6), st.integers(1, 3))
@settings(deadline=None, max_examples=120)
def test_whatever_machines_do_the_promises_hold_and_it_ends(natures: list[Nature], max_unavailable: int) -> None:
    rack = Rack(natures, replace(RULES, max_unavailable=max_unavailable))
    plan = rack.run()
    for node in rack.nodes.values():
        assert node.update is None or node.update.step not in UNDER_WAY
        if node.ready:
            assert node.good == node.assigned, f"{node.name} runs what it is not assigned"
    good = all(n.drains < NEVER and n.boots["v2"] <= 2 and n.power == PowerPhase.DONE for n in natures)
    assert (plan.phase == RolloutPhase.COMPLETE) == good
    assert plan.phase == (RolloutPhase.COMPLETE if good else RolloutPhase.STOPPED)
    if good:
        assert all(node.assigned == V2 for node in rack.nodes.values())


@given(st.lists(natures, min_size=1, max_size=5), st.integers(0, 12), st.integers(1, 2))
@settings(deadline=None, max_examples=80)
def test_undo_at_any_moment_brings_back_what_was_changed(natures: list[Nature], when: int, max_unavailable: int) -> None:
    healthy = [Nature(n.drains % NEVER, {"v1": n.boots["v1"] % NEVER, "v2": n.boots["v2"] % NEVER}) for n in natures]
    rack = Rack(healthy, replace(RULES, max_unavailable=max_unavailable))
    for _ in range(when):
        rack.round()
    rack.rules = replace(rack.rules, undo=True)
    plan = rack.run()
    assert plan.phase == RolloutPhase.COMPLETE
    assert all(node.assigned == V1 == node.good and node.ready for node in rack.nodes.values())


def test_names_are_taken_in_the_order_of_their_numbers() -> None:
    assert sorted(["n10", "n2", "a", "n1"], key=natural) == ["a", "n1", "n2", "n10"]


def test_nothing_is_known_of_an_image_without_revision() -> None:
    node = NodeView("n1", wanted=None, why_unknown="image/i has no revision yet")
    plan = plan_rollout(RULES, [node])
    assert (plan.phase, plan.changes, plan.message) == (RolloutPhase.PROGRESSING, (), "image/i has no revision yet")
