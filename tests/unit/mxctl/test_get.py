"""get: what is shown, in which form, and what is never kept quiet."""

import asyncio
import json
import signal
import sys
from collections.abc import Callable
from io import BytesIO
from typing import cast

import pytest
import yaml

from crds import keys
from crds.job import STOP_FINALIZER, Job
from crds.node import Node
from crds.registry import KINDS
from store.store import Store
from tests.unit.mxctl.terminal import Terminal, job


def node(name: str, **labels: str) -> Node:
    number = int(name.removeprefix("n"))
    return Node.model_validate(
        {
            "metadata": {"name": name, "labels": labels},
            "spec": {"mac": f"52:54:00:77:00:{number:02x}", "address": f"10.77.0.{10 + number}"},
        }
    )


@pytest.fixture
def filled(terminal: Terminal) -> Terminal:
    terminal.create(node("n1", row="a"), node("n2", row="b"), job("w", labels={"app": "sim"}), job("v"))
    terminal.status(Job, "w", lambda found: setattr(found.status, "node", "n2"))
    return terminal


def test_name_comes_first_and_age_last(filled: Terminal) -> None:
    said = filled.run("get", "nodes")
    assert said.code == 0
    assert [line.split()[0] for line in said.out.splitlines()] == ["NAME", "n1", "n2"]
    assert said.out.splitlines()[0].split()[-1] == "AGE"
    assert said.err == ""


def test_wide_shows_more_columns(filled: Terminal) -> None:
    assert "MAC" not in filled.run("get", "nodes").out
    assert "52:54:00:77:00:02" in filled.run("get", "nodes", "-o", "wide").out


def test_no_headers_leaves_the_titles_out(filled: Terminal) -> None:
    assert filled.run("get", "nodes", "--no-headers").out.startswith("n1 ")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["jobs"], ["job/v", "job/w"]),
        (["job", "w"], ["job/w"]),
        (["job/w", "no/n1"], ["job/w", "node/n1"]),
        (["jobs,nodes"], ["job/v", "job/w", "node/n1", "node/n2"]),
        (["nodes", "-l", "row in (a,c)"], ["node/n1"]),
        (["nodes", "-l", "row!=a"], ["node/n2"]),
        (["jobs", "-l", "!app"], ["job/v"]),
        (["jobs", "-A", "-l", "app"], ["job/w"]),
    ],
)
def test_words_choose_objects(filled: Terminal, words: list[str], names: list[str]) -> None:
    assert filled.run("get", *words, "-o", "name").out.split() == names


def test_several_kinds_are_told_apart(filled: Terminal) -> None:
    tables = filled.run("get", "jobs,nodes").out.split("\n\n")
    assert [table.split("\n")[1].split()[0] for table in tables] == ["node/n1", "job/v"]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{.status.node}", "n2"),
        ("node {.status.node}!", "node n2!"),
        (".status.node", "n2"),
        ("{.metadata.labels['app']}{'\\n'}", "sim\n"),
        ("{.status.exitCode}", ""),
        ("{.spec.command}", '["true"]'),
        ("{.spec.placement.pinned}", "false"),
    ],
)
def test_jsonpath_of_one_object(filled: Terminal, template: str, text: str) -> None:
    assert filled.run("get", "job", "w", "-o", f"jsonpath={template}").out == text


def test_jsonpath_of_a_list(filled: Terminal) -> None:
    template = '{range .items[*]}{.metadata.name}={.spec.address}{"\\n"}{end}'
    assert filled.run("get", "nodes", "-o", f"jsonpath={template}").out == "n1=10.77.0.11\nn2=10.77.0.12\n"


def test_custom_columns(filled: Terminal) -> None:
    said = filled.run("get", "jobs", "-o", "custom-columns=JOB:.metadata.name,NODE:.status.node")
    assert [line.split() for line in said.out.splitlines()] == [["JOB", "NODE"], ["v", "<none>"], ["w", "n2"]]


def test_sorted_by_a_value(filled: Terminal) -> None:
    filled.status(Job, "v", lambda found: setattr(found.status, "move_count", 10))
    filled.status(Job, "w", lambda found: setattr(found.status, "move_count", 9))
    assert filled.run("get", "jobs", "--sort-by={.status.moveCount}", "-o", "name").out.split() == ["job/w", "job/v"]


def test_json_and_yaml_say_the_same(filled: Terminal) -> None:
    as_json = json.loads(filled.run("get", "job", "w", "-o", "json").out)
    assert as_json == yaml.safe_load(filled.run("get", "job", "w", "-o", "yaml").out)
    assert list(as_json) == ["apiVersion", "kind", "metadata", "spec", "status"]
    listed = json.loads(filled.run("get", "jobs", "-o", "json").out)
    assert (listed["kind"], [item["metadata"]["name"] for item in listed["items"]]) == ("List", ["v", "w"])


@pytest.mark.parametrize(
    ("words", "where"), [(["jobs"], " in alice namespace."), (["jobs", "-A"], "."), (["migrations"], " in alice namespace.")]
)
def test_nothing_found_is_said_on_stderr_and_is_no_error(terminal: Terminal, words: list[str], where: str) -> None:
    said = terminal.run("get", *words, "-n", "alice")
    assert (said.code, said.out, said.err) == (0, "", f"No resources found{where}\n")


def test_one_missing_name_does_not_hide_the_others(filled: Terminal) -> None:
    said = filled.run("get", "job", "w", "nope")
    assert said.code == 1
    assert "w " in said.out
    assert said.err == "Error from server (NotFound): job/nope does not exist\n"


def test_namespaces_are_apart(filled: Terminal) -> None:
    filled.create(Job.model_validate({"metadata": {"name": "w", "namespace": "alice"}, "spec": {"command": ["true"]}}))
    assert filled.run("get", "jobs", "-n", "alice", "--no-headers").out.split()[0] == "w"
    assert [line.split()[:2] for line in filled.run("get", "jobs", "-A", "--no-headers").out.splitlines()] == [
        ["alice", "w"], ["default", "v"], ["default", "w"],
    ]  # fmt: skip
    assert filled.run("-n", "alice", "get", "jobs", "-o", "name").out == "job/w\n"


def test_a_broken_object_is_warned_of_and_hides_nothing(filled: Terminal) -> None:
    filled.put(keys.object_key(Job, "bad", "default"), b"{")
    said = filled.run("get", "jobs", "-o", "name")
    assert (said.code, said.out) == (0, "job/v\njob/w\n")
    assert said.err.startswith("Warning: job/bad: the stored value is broken")


def test_a_broken_object_that_is_named_is_shown_as_it_is(filled: Terminal) -> None:
    raw = {"kind": "Job", "spec": 3, "status": {"conditions": [{"type": "Valid", "status": "False"}]}}
    filled.put(keys.object_key(Job, "bad", "default"), json.dumps(raw).encode())
    said = filled.run("get", "job", "bad", "-o", "jsonpath={.status.conditions[0].type}")
    assert (said.code, said.out) == (1, "Valid")
    assert said.err.startswith("Error from server (Invalid): job/bad: the stored value is broken")
    assert yaml.safe_load(filled.run("get", "job", "bad", "-o", "yaml").out) == raw
    assert json.loads(filled.run("get", "job", "bad", "-o", "json").out) == raw
    assert filled.run("get", "job", "bad").out == ""
    said = filled.run("describe", "job", "bad")
    assert said.code == 1
    assert "type: Valid" in said.out
    filled.put(keys.object_key(Job, "bad", "default"), b"[" * 5)
    assert filled.run("get", "job", "bad", "-o", "yaml").out == ""


def test_without_a_reconciler_what_is_shown_may_be_old(filled: Terminal) -> None:
    filled.leave_unled()
    said = filled.run("get", "nodes")
    assert said.code == 0
    assert "no reconciler is leading" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["jobz"], 'there is no kind "jobz"; did you mean "jobs"?'),
        (["job", "w", "-l", "a=b"], "names go neither with -l nor with -A"),
        (["jobs,nodes", "w"], "names go with one kind only"),
        (["jobs,nodes", "-w"], "-w watches one kind, or one object"),
        (["jobs", "-l", "a=b=c"], 'cannot read "a=b=c"'),
        (["jobs", "-o", "jsonpath={.a"], "braces or quotes do not match"),
        (["jobs", "-o", "jsonpath={range .items[*]}{.a}"], "{range} without {end}"),
        (["jobs", "-o", "jsonpath={.a[}"], "jsonpath"),
        (["jobs", "-o", "xml"], 'there is no output format "xml"'),
        (["jobs", "-o", "custom-columns=NAME"], "is not TITLE:PATH"),
        ([], "name a kind: "),
    ],
)
def test_a_wrong_wish_is_one_line_and_asks_nothing(terminal: Terminal, words: list[str], message: str) -> None:
    terminal.down = True
    said = terminal.run("get", *words)
    assert (said.code, said.out) == (1, "")
    assert message in said.err
    assert len(said.err.splitlines()) == 1


def test_a_cluster_that_does_not_answer_is_named(terminal: Terminal) -> None:
    terminal.down = True
    said = terminal.run("get", "nodes")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith('Error: etcd of context "test" at 10.0.0.1:2379 does not answer')
    assert len(said.err.splitlines()) == 1


def test_every_kind_has_columns_that_can_be_shown(terminal: Terminal) -> None:
    for kind in KINDS:
        assert terminal.run("get", kind.PLURAL).code == 0


async def printed(lines: int) -> None:
    """Waits until the command has printed that many lines."""
    out = cast("BytesIO", sys.stdout.buffer)  # what the runner puts there
    while out.getvalue().count(b"\n") < lines:  # noqa: ASYNC110 - nobody tells when something is printed
        await asyncio.sleep(0)


def moves(count: int) -> Callable[[Job], None]:
    return lambda found: setattr(found.status, "move_count", count)


def test_watch_shows_what_looks_different_and_what_goes_until_interrupted(filled: Terminal) -> None:
    async def live(store: Store) -> None:
        await printed(2)
        for count, lines in ((1, 3), (1, 3), (2, 4)):  # one after the other: two changes seen at once are one row
            await store.change_status(Job, "w", None, moves(count))
            await printed(lines)
            await store.change_status(
                Job, "w", None, lambda found: setattr(found.status, "cpu_seconds", found.status.cpu_seconds + 1)
            )
        await store.delete(Job, "v")
        await printed(5)
        await store.remove_finalizer(await store.get(Job, "v"), STOP_FINALIZER)
        await printed(6)
        signal.raise_signal(signal.SIGINT)

    said = filled.run("get", "jobs", "-w", "--no-headers", meanwhile=live)
    assert said.code == 130
    rows = [(line.split()[0], line.split()[3]) for line in said.out.splitlines()]
    assert rows == [("v", "0"), ("w", "0"), ("w", "1"), ("w", "2"), ("v", "0"), ("v", "0")]
    assert "Terminating" in said.out.splitlines()[4]
