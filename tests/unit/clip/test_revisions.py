"""An image's history: only forward, nothing removed that nodes need."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip import revisions
from clip.builder import Built
from clip.errors import ImageError
from clip.revisions import RevisionError
from crds.image import Image
from crds.manifest import Manifest
from crds.meta import Truth, find_condition
from crds.node import Node
from crds.rollout import Rollout, RolloutPhase

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def image() -> Image:
    return Image.model_validate({"metadata": {"name": "numpy", "generation": 3}})


def built(digest: str, recipe: str = "r1") -> Built:
    return Built((f"agent-{digest}", "base-1"), "boot-1", recipe, 7, Manifest(digest=digest, kernel="6.12", agent="1"))


def node(name: str, digest: str = "") -> Node:
    return Node.model_validate({"metadata": {"name": name}, "status": {"facts": {"image": digest}}})


def history(*digests: str) -> Image:
    obj = image()
    for digest in digests:
        revisions.record(obj, built(digest, f"recipe of {digest}"), 3, NOW)
    return obj


def test_a_build_becomes_the_current_revision() -> None:
    obj = history("aa", "bb")
    assert [revision.number for revision in obj.status.revisions] == [1, 2] and obj.status.current == 2
    condition = find_condition(obj.status.conditions, "Built")
    assert condition is not None and condition.status is Truth.TRUE and condition.observed_generation == 3
    assert condition.message == "revision 2, digest bb"


def test_the_same_content_is_no_new_revision() -> None:
    obj = history("aa")
    revision = revisions.record(obj, built("aa", "another wish"), 3, NOW)
    assert [revision.number for revision in obj.status.revisions] == [1]
    assert revision.recipe == "another wish", "so that it is not built again and again"


def test_going_back_goes_forward() -> None:
    obj = history("aa", "bb", "cc")
    back = revisions.roll_back(obj, None, NOW)
    assert (back.number, back.digest, back.rollback_of, obj.status.current) == (4, "bb", 2, 4)
    assert back.recipe == "recipe of cc", "what was wished before is not built again until something changes"
    further = revisions.roll_back(obj, None, NOW)
    assert (further.number, further.digest, further.rollback_of) == (5, "aa", 1), "back once more is further back"
    assert revisions.roll_back(obj, 3, NOW).digest == "cc"


def test_what_cannot_be_gone_back_to_is_told() -> None:
    with pytest.raises(RevisionError, match="has no revision yet"):
        revisions.roll_back(image(), None, NOW)
    with pytest.raises(RevisionError, match="no older revision than 1"):
        revisions.roll_back(history("aa"), None, NOW)
    with pytest.raises(RevisionError, match="has no revision 7; there are: 1, 2"):
        revisions.roll_back(history("aa", "bb"), 7, NOW)
    with pytest.raises(RevisionError, match="the content of the current one, 2, already"):
        revisions.roll_back(history("aa", "bb"), 2, NOW)


def test_a_revision_in_use_is_not_removed_and_its_nodes_are_named() -> None:
    obj = history("aa", "bb")
    with pytest.raises(RevisionError, match="revision 1 is in use by n1, n2; bring the nodes to another"):
        revisions.remove(obj, 1, [node("n2", "aa"), node("n1", "aa"), node("n3", "bb")])
    with pytest.raises(RevisionError, match="revision 2 is the current one"):
        revisions.remove(obj, 2, [])
    assert [revision.number for revision in obj.status.revisions] == [1, 2]
    assert revisions.remove(obj, 1, [node("n3", "bb")]).digest == "aa"
    assert [revision.number for revision in obj.status.revisions] == [2]


def test_one_whose_content_another_has_may_go_though_nodes_run_it() -> None:
    obj = history("aa", "bb")
    revisions.roll_back(obj, 1, NOW)
    assert revisions.remove(obj, 1, [node("n1", "aa")]).number == 1


def test_what_a_node_will_boot_or_be_put_back_on_counts_as_in_use() -> None:
    assigned = {"assigned": {"image": "numpy", "revision": "aa"}, "good": {"image": "numpy", "revision": "bb"}}
    waiting = Node.model_validate({"metadata": {"name": "n1"}, "status": assigned})
    assert revisions.digests_of(waiting) == {"aa", "bb"}


def test_what_a_rollout_brings_nodes_to_counts_as_in_use() -> None:
    begun = {"rollout": "r", "uid": "u", "created": NOW, "since": NOW, "step": "Draining"}
    update = begun | {"target": {"image": "numpy", "revision": "aa"}, "before": {"image": "numpy", "revision": "cc"}}
    emptied = Node.model_validate({"metadata": {"name": "n1"}, "status": {"update": update}})
    assert revisions.digests_of(emptied) == {"aa", "cc"}
    done = Node.model_validate({"metadata": {"name": "n1"}, "status": {"update": update | {"step": "Updated"}}})
    assert revisions.digests_of(done) == set()
    obj = history("aa", "bb")
    going = Rollout.model_validate({"metadata": {"name": "r"}, "status": {"revisions": {"numpy": "aa"}}})
    with pytest.raises(RevisionError, match="revision 1 is in use by n1, rollout/r; bring"):
        revisions.remove(obj, 1, [emptied], [going])
    over = going.model_copy(update={"status": going.status.model_copy(update={"phase": RolloutPhase.COMPLETE})})
    removed = revisions.remove(obj, 1, [done], [over])
    revisions.put_back(obj, removed)
    revisions.put_back(obj, removed)
    assert [revision.number for revision in obj.status.revisions] == [1, 2]


def test_numbers_are_never_used_again() -> None:
    obj = history("aa", "bb")
    revisions.remove(obj, 1, [])
    assert revisions.record(obj, built("aa"), 3, NOW).number == 3


def test_progress_and_failure_leave_the_revisions_alone() -> None:
    obj = history("aa")
    revisions.progress(obj, "unpacking", 0.333, 3, NOW)
    revisions.progress(obj, "installing", 0.5, 3, NOW + timedelta(seconds=9))
    assert obj.status.building is not None and obj.status.building.since == NOW
    condition = find_condition(obj.status.conditions, "Built")
    assert condition is not None and condition.status is Truth.UNKNOWN and "revision 1 stays" in condition.message
    revisions.fail(obj, ImageError("node image: no room", "DiskFull"), 3, NOW)
    condition = find_condition(obj.status.conditions, "Built")
    assert condition is not None and (condition.status, condition.reason) == (Truth.FALSE, "DiskFull")
    assert obj.status.building is None and obj.status.current == 1 and len(obj.status.revisions) == 1


STEPS = st.lists(st.tuples(st.sampled_from(["build", "back", "remove"]), st.integers(1, 6)), max_size=25)


@given(STEPS)
def test_the_current_one_is_always_there_and_the_newest(steps: list[tuple[str, int]]) -> None:
    obj, highest = image(), 0
    doing: dict[str, Any] = {
        "build": lambda number: revisions.record(obj, built(f"d{number}"), 3, NOW),
        "back": lambda number: revisions.roll_back(obj, number, NOW),
        "remove": lambda number: revisions.remove(obj, number, [node("n1", "d1")]),
    }
    for what, number in steps:
        try:
            doing[what](number)
        except RevisionError:
            continue
        numbers = [revision.number for revision in obj.status.revisions]
        assert numbers == sorted(set(numbers)) and obj.status.current == max(numbers) >= highest
        highest = max(numbers)
