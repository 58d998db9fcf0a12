"""All models together: described, strict, closed."""

import ast
import inspect
import json
import pkgutil
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib import import_module
from itertools import pairwise
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import crds
from crds import keys, states
from crds.job import Job
from crds.meta import Model, Resource, Status
from crds.node import Node, NodeSpec
from crds.registry import BY_WORD, KINDS, find_kind


def models() -> Iterator[type[BaseModel]]:
    for module in pkgutil.iter_modules(crds.__path__):
        for value in vars(import_module(f"crds.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Model) and value not in (Model, Resource, Status):
                yield value


MODELS = sorted(set(models()), key=lambda model: model.__name__)
TABLES: dict[str, Mapping[Any, frozenset[Any]]] = {
    "JOB": states.JOB,
    "MIGRATION": states.MIGRATION,
    "REPORT": states.REPORT,
    "SOURCE_MOVE": states.SOURCE_MOVE,
    "DESTINATION_MOVE": states.DESTINATION_MOVE,
}


def described(model: type[BaseModel]) -> set[str]:
    """Fields of the class itself with a docstring below them. Pydantic could tell, but would read all source at every start."""
    [body] = [node.body for node in ast.parse(inspect.getsource(model)).body if isinstance(node, ast.ClassDef)]
    return {
        field.target.id
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and str(text.value.value).strip()
    }


def class_variables(model: type[BaseModel]) -> set[str]:
    return set(model.__class_vars__) | set(model.__private_attributes__)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_and_every_field_is_described(model: type[BaseModel]) -> None:
    assert (model.__doc__ or "").strip()
    assert set(model.__annotations__) - described(model) - class_variables(model) == set()


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_refuses_unknown_fields(model: type[BaseModel]) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"noSuchField": 1})
    assert ("extra_forbidden", ("noSuchField",)) in [(error["type"], error["loc"]) for error in caught.value.errors()]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_model_has_a_schema(model: type[BaseModel]) -> None:
    assert json.loads(json.dumps(model.model_json_schema()))


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_states_are_closed(name: str) -> None:
    table = TABLES[name]
    kind = type(next(iter(table)))
    assert issubclass(kind, StrEnum)
    assert set(table) == set(kind)
    assert all(follower in table for followers in table.values() for follower in followers)
    assert all(old not in followers for old, followers in table.items())


@pytest.mark.parametrize("name", TABLES)
def test_every_state_can_be_reached_and_left_for_an_end(name: str) -> None:
    table = TABLES[name]
    begins = {"REPORT": {"Starting", "Arriving"}}.get(name, {str(next(iter(table)))})
    reached = {state for state in table if state in begins}
    while more := {follower for state in reached for follower in table[state]} - reached:
        reached |= more
    assert reached == set(table)
    ending = {state for state, followers in table.items() if not followers}
    assert ending
    while more := {state for state, followers in table.items() if followers & ending} - ending:
        ending |= more
    assert ending == set(table)


def test_staying_is_always_allowed_and_going_back_is_not() -> None:
    assert states.may_follow(states.SOURCE_MOVE, states.SourceStep.SENT, states.SourceStep.SENT)
    assert states.may_follow(states.SOURCE_MOVE, states.SourceStep.FREEZING, states.SourceStep.SENT)
    assert not states.may_follow(states.SOURCE_MOVE, states.SourceStep.SENT, states.SourceStep.FREEZING)
    assert not states.may_follow(states.DESTINATION_MOVE, states.DestinationStep.COMMITTED, states.DestinationStep.REFUSED)


def test_what_agents_may_read_sorts_last() -> None:
    placements = keys.placement("n1", "default", "w")
    others = [
        keys.LEADER, keys.EVENTS, keys.object_key(Job, "w", "default"), keys.object_key(Node, "n1"),
        keys.alive("n1"), keys.load("n1"), keys.report("n1", "default", "w"), keys.claim("n1", "default", "w"),
    ]  # fmt: skip
    assert all(key < placements for key in others)
    assert all(key.startswith(keys.ROOT) for key in [*others, placements])
    assert placements.startswith(keys.placement_prefix("n1"))


def test_one_node_s_prefix_is_no_other_s() -> None:
    assert not keys.placement("n10", "default", "w").startswith(keys.placement_prefix("n1"))
    assert not keys.alive("n10").startswith(keys.node_prefix("n1"))


def test_parts_say_what_a_key_is_made_of() -> None:
    assert keys.parts(keys.report("n1", "default", "w")) == ["nodes", "n1", "jobs", "default", "w"]


def test_no_word_means_two_kinds() -> None:
    words = [word for kind in KINDS for word in {kind.KIND.lower(), kind.PLURAL, *kind.SHORT}]
    assert len(words) == len(set(words)) == len(BY_WORD)
    assert find_kind("Jobs") is Job
    with pytest.raises(KeyError, match="nodes"):
        find_kind("pod")


def test_a_mac_is_one_address_in_any_case_of_letters() -> None:
    assert NodeSpec(mac="52:54:00:AB:cd:0F").mac == "52:54:00:ab:cd:0f"


def test_the_wide_reason_of_a_job_says_what_is_the_matter_now() -> None:
    [reason] = [column.text for column in Job.COLUMNS if column.title == "REASON"]
    job = Job.model_validate({"metadata": {"name": "w"}, "spec": {"command": ["x"]}})
    assert reason(job) == "-"
    job.status.reason = "cheapest of 3 nodes"
    assert reason(job) == "cheapest of 3 nodes"
    job.status.message = "exit code 3"
    assert reason(job) == "exit code 3"
