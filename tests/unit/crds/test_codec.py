"""The codec: every error with its line and field, all at once; and nothing taken for what it is not."""

# ruff: noqa: E501 - whole messages stand in one line

import time

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from crds.balancepolicy import BalancePolicy
from crds.codec import CodecErrors, dump_data, dump_documents, parse_documents
from crds.job import Job
from crds.node import Node
from crds.registry import DECLARABLE

NODE = "apiVersion: mx/v1\nkind: Node\nmetadata: {name: n1}\n"
JOB = "apiVersion: mx/v1\nkind: Job\nmetadata: {name: w}\nspec:\n  command: [x]\n"
POLICY = "apiVersion: mx/v1\nkind: BalancePolicy\nmetadata: {name: p}\nspec:\n"


def errors(text: str) -> list[str]:
    with pytest.raises(CodecErrors) as caught:
        parse_documents(text, "f")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (NODE + "spec:\n  mak: x\n", 'f:5: spec.mak: unknown field; did you mean "mac"?'),
        (NODE + "spec:\n  colour: x\n", "f:5: spec.colour: unknown field; there are: mac, address, image, kernelArguments, power, speed, owner, taints, unschedulable"),
        (NODE + "spek: {}\n", 'f:4: spek: unknown field; did you mean "spec"?'),
        (POLICY + "  min_residency: 3s\n", 'f:5: spec.min_residency: unknown field; did you mean "minResidency"?'),
        (JOB + "  placement: {pinned: yes}\n", 'f:6: spec.placement.pinned: must be true or false, not the text "yes"'),
        (POLICY + "  budget:\n    cluster: '2'\n", 'f:6: spec.budget.cluster: must be a whole number, not the text "2"'),
        (POLICY + "  budget: {cluster: 0}\n", "f:5: spec.budget.cluster: must be at least 1, not 0"),
        (POLICY + "  minGain: .inf\n", 'f:5: spec.minGain: must be a number, not the text ".inf"'),
        (POLICY + "  minGain: 1e999\n", "f:5: spec.minGain: the number 1e999 is out of range"),
        (POLICY + "  goal: fast\n", 'f:5: spec.goal: must be "opportunity-cost", "mosix", "threshold" or "none", not the text "fast"'),
        (POLICY + "  rotation: sometimes\n", 'f:5: spec.rotation: must be "auto" or "off", not the text "sometimes"'),
        (POLICY + "  threshold: {high: 1, low: 2}\n", "f:5: spec.threshold: low 2 is above high 1; nodes between the two neither give nor take"),
        (POLICY + "  memory: {highWater: 0.2}\n", "f:5: spec.memory: lowWater 0.75 is above highWater 0.2"),
        (POLICY + "  interval: 3 parsecs\n", "f:5: spec.interval: '3 parsecs' is not a duration; write e.g. \"30s\", \"5m\" or \"1h30m\""),
        (JOB + "  resources: {memory: 12Zi}\n", "f:6: spec.resources.memory: '12Zi' is not an amount of memory; write e.g. \"512Mi\" or \"2Gi\""),
        (JOB + "  env: {A: 1}\n", "f:6: spec.env.A: must be text, not the number 1: put it in quotes"),
        (JOB.replace("[x]", "[]"), "f:5: spec.command: must not be empty"),
        (JOB.replace("[x]", "x"), 'f:5: spec.command: must be a list, not the text "x"'),
        (NODE + "spec:\n  taints:\n  - key: a\n  - value: b\n", "f:7: spec.taints[1].key: is missing"),
        (JOB + "  env: {A=B: x}\n", 'f:6: spec.env: "A=B" is no name of a variable: it must not be empty nor contain "=" or NUL'),
        (JOB + "  env: {'': x}\n", 'f:6: spec.env: "" is no name of a variable: '),
        (JOB + '  env: {A: "b\\0"}\n', "f:6: spec.env: A: a program can be given no NUL characters"),
        (JOB + '  workdir: work\n', 'f:6: spec.workdir: "work" is no directory of a node: it must begin with "/"'),
        (JOB.replace("[x]", '["a\\0"]'), "f:5: spec.command: a program can be given no NUL characters"),
        (NODE.replace("n1", "n" * 64), "f:3: metadata.name: must have at most 63 characters, not 64"),
        (NODE + "spec: {mac: 52:54}\n", 'f:4: spec.mac: "52:54" is no MAC address; write e.g. 52:54:00:77:00:01'),
        (NODE.replace("n1", "N_1"), 'f:3: metadata.name: "N_1" is no name: lower-case letters, digits, "-" and "." only, at most 63, a letter or digit first and last'),
        (NODE.replace("name: n1", "labels: {}"), "f:3: metadata.name: is missing"),
        (NODE.replace("metadata: {name: n1}\n", ""), "f:1: metadata: is missing"),
        (NODE.replace("{name: n1}", ""), "f:3: metadata: must be a mapping, not nothing"),
        (NODE.replace("n1", "n1, namespace: x"), "f:3: metadata.namespace: a Node belongs to the whole cluster and has no namespace: remove it"),
        (NODE.replace("n1", "n1, labels: {a.b/c: 1}"), "f:3: metadata.labels['a.b/c']: must be text, not the number 1: put it in quotes"),
        (NODE.replace("n1", "n1, uid: x"), "f:3: metadata.uid: is written by the store, not declared: remove it"),
        (NODE + "status: {}\n", "f:4: status: status is observed, not declared: remove it"),
        (NODE.replace("mx/v1", "mx/v2"), 'f:1: apiVersion: must be "mx/v1", not the text "mx/v2"'),
        (NODE.replace("apiVersion: mx/v1\n", ""), "f:1: apiVersion: is missing; write mx/v1"),
        (NODE.replace("Node", "Nod"), 'f:2: kind: unknown kind "Nod"; did you mean "Node"?'),
        (NODE.replace("Node", "Event"), 'f:2: kind: unknown kind "Event"; events are only read'),
        (NODE.replace("Node", "[Node]"), "f:2: kind: must be text, not a list"),
        (NODE.replace("kind: Node\n", ""), "f:1: kind: is missing; there are: Cluster, Image, NodeSet, Node, Rollout, BalancePolicy, Job, Migration"),
        (NODE + "spec:\n  mac: 52:54:00:77:00:01\n  mac: 52:54:00:77:00:02\n", "f:6: spec.mac: given twice, first in line 5"),
        ("- a\n", "f:1: a document must be a mapping with apiVersion, kind, metadata and spec, not a list"),
        ("just words\n", 'f:1: a document must be a mapping with apiVersion, kind, metadata and spec, not the text "just words"'),
        (NODE + "1: x\n", "f:4: 1: is not text: put the name in quotes"),
        (NODE + "spec: !!python/object:os.system {}\n", 'f:4: spec: the tag "tag:yaml.org,2002:python/object:os.system" is not supported'),
        (NODE + "spec: {image: !secret x}\n", 'f:4: spec.image: the tag "!secret" is not supported'),
        ("a: [1\n", "f:2: broken YAML: did not find expected ',' or ']', while parsing a flow sequence from line 1"),
        ("a: b: c\n", "f:1: broken YAML: mapping values are not allowed in this context"),
        ("a:\n\t- b\n", "f:2: broken YAML: found character that cannot start any token, while scanning for the next token from line 2"),
        ("a: 'b\n", "f:2: broken YAML: found unexpected end of stream, while scanning a quoted scalar from line 1"),
        ("a: *b\n", "f:1: broken YAML: *b stands for nothing: no &b ends before it in its document"),
        ("a: &a [*a]\n", "f:1: broken YAML: *a stands for nothing: no &a ends before it in its document"),
        ("a: \x07\n", "f:1: broken YAML: "),
        ("? [a]\n: b\n", "f:1: a name of a field must be text"),
        ("[" * 60, "f:1: nested more than 50 levels deep"),
    ],
)  # fmt: skip
def test_each_error_has_its_line_and_field(text: str, error: str) -> None:
    found = errors(text)
    assert found[0].startswith(error)
    assert all(line.startswith("f:") for line in found)


@pytest.mark.parametrize(("written", "read"), [("off", "off"), ("false", "off"), ("auto", "auto"), ("true", "auto")])
def test_a_bare_off_is_a_word(written: str, read: str) -> None:
    [only] = parse_documents(f"{POLICY}  rotation: {written}\n", "f")
    assert isinstance(only.obj, BalancePolicy)
    assert only.obj.spec.rotation == read


def test_all_errors_of_all_documents_are_told_in_order() -> None:
    text = f"{NODE}spec: {{mak: x, taints: 1}}\n---\n# empty\n---\nkind: Nod\n---\n{JOB}  env: 3\n---\na: [\n"
    assert [line.split(":")[1] for line in errors(text)] == ["4", "4", "8", "15", "18"]


def test_empty_documents_are_passed_over() -> None:
    assert parse_documents("", "f") == []
    assert parse_documents("---\n# nothing\n---\n~\n", "f") == []
    [only] = parse_documents(f"---\n---\n{NODE}", "f")
    assert (only.obj.name, only.location) == ("n1", "f:3")


@pytest.mark.parametrize(
    "text",
    [
        NODE + "spec: {image: " + "x" * (2 << 20) + "}\n",
        JOB + "  env: {A: &a " + "x" * 1000 + "".join(f", A{n}: *a" for n in range(2000)) + "}\n",
        "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(20)),
    ],
    ids=["long", "aliases", "bomb"],
)  # fmt: skip
def test_what_is_too_large_is_refused_quickly(text: str) -> None:
    started = time.monotonic()
    [error] = errors(text)
    assert error.startswith("f:1: the object is ")
    assert "1 MiB is allowed" in error
    assert time.monotonic() - started < 10


def test_anchors_and_merge_keys_work() -> None:
    text = JOB + "  env: &e {A: x}\n  placement:\n    nodeSelector: {<<: *e, B: y}\n"
    [document] = parse_documents(text, "f")
    assert isinstance(document.obj, Job)
    assert document.obj.spec.placement.node_selector == {"A": "x", "B": "y"}


def test_plain_words_stay_text_unless_they_are_numbers_or_booleans() -> None:
    text = JOB + "  env: {A: yes, B: 2024-01-01, C: 0755, D: 12:30, E: 52:54:00:12:00:01, F: 'true', G: off, H: !!str 1}\n"
    [document] = parse_documents(text, "f")
    assert document.data["spec"]["env"] == {
        "A": "yes", "B": "2024-01-01", "C": "0755", "D": "12:30", "E": "52:54:00:12:00:01", "F": "true", "G": "off", "H": "1",
    }  # fmt: skip
    for word, error in (
        ("0x10", "the number 16"),
        ("1e2", "the number 100.0"),
        ("True", "true"),
        ("~", "nothing"),
        ("-3", "the number -3"),
    ):
        assert error in errors(JOB + f"  env: {{A: {word}}}\n")[0]


def test_lines_are_those_of_the_names() -> None:
    [document] = parse_documents(f"# first\n{NODE}spec:\n  taints:\n    - key: a\n      value: b\n", "dir/f.yaml")
    assert document.location == "dir/f.yaml:2"
    assert document.line_of(("spec", "taints", 0, "value")) == 8
    assert document.line_of(("spec", "taints", 0)) == 7
    assert document.line_of(("spec", "mac")) == 5
    assert document.line_of(("status",)) == 2


def test_data_is_what_was_written_and_nothing_else() -> None:
    [document] = parse_documents(NODE + "spec: {unschedulable: true}\n", "f")
    assert document.data["spec"] == {"unschedulable": True}
    assert isinstance(document.obj, Node)
    assert document.obj.spec.taints == []


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"], exclude_characters="\0"), min_size=1),
        min_size=1,
        max_size=4,
    )
)
@example(["0E0", "1e3", "0o17", "-.5", "1.e5", "0x1F", "017", "1_000", "12:30", "yes", "~"])
def test_any_command_survives_dump_and_parse(command: list[str]) -> None:
    job = Job.model_validate({"metadata": {"name": "w", "labels": {"a": "true"}}, "spec": {"command": command}})
    data = yaml.safe_load(dump_documents([job]))
    assert data["spec"]["command"] == command
    declared = {"apiVersion": "mx/v1", "kind": "Job", "metadata": {"name": "w"}, "spec": data["spec"]}
    [document] = parse_documents(dump_data(declared), "f")
    assert isinstance(document.obj, Job)
    assert document.obj.spec == job.spec


def test_dumped_documents_are_in_order_and_readable() -> None:
    job = Job.model_validate({"metadata": {"name": "w"}, "spec": {"command": ["python3", "-c", "import os\nprint(1)\n"]}})
    text = dump_documents([job, job])
    assert [next(iter(part)) for part in yaml.safe_load_all(text)] == ["apiVersion"] * 2
    assert [line for line in text.split("---")[0].splitlines() if line[0].isalpha()][:4] == [
        "apiVersion: mx/v1",
        "kind: Job",
        "metadata:",
        "spec:",
    ]
    assert "  - |\n    import os\n    print(1)\n" in text


@given(st.text())
def test_no_text_makes_it_fall(text: str) -> None:
    try:
        parse_documents(text, "f")
    except CodecErrors as found:
        assert found.problems


@pytest.mark.parametrize("kind", DECLARABLE, ids=lambda kind: kind.KIND)
def test_every_kind_can_be_declared_by_its_required_fields(kind: type[Job]) -> None:
    spec = {"Job": "{command: [x]}", "Migration": "{job: w}", "Checkpoint": "{job: w}"}.get(kind.KIND, "{}")
    [document] = parse_documents(f"apiVersion: mx/v1\nkind: {kind.KIND}\nmetadata: {{name: x}}\nspec: {spec}\n", "f")
    assert type(document.obj) is kind
