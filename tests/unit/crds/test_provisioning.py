"""What machines boot, how they are switched, and whole sets of them: the rules of the texts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from crds.assignment import Assignment, Mount, differences
from crds.cluster import ClusterSpec, address_range
from crds.node import NodeSpec
from crds.nodeset import NodeSetSpec
from crds.power import PowerDriver, PowerSpec
from crds.rollout import RolloutSpec
from nodeagent.facts import assigned_digest


def test_an_assignment_s_digest_depends_on_all_of_it() -> None:
    first = Assignment(image="numpy", revision="aaa")
    assert first.digest == Assignment(image="numpy", revision="aaa").digest
    changes: list[dict[str, object]] = [
        {"revision": "bbb"},
        {"kernel_arguments": ["quiet"]},
        {"address": "10.77.0.11"},
        {"dns": ["10.77.0.1"]},
        {"mounts": [Mount(source="s:/x", target="/x")]},
    ]
    others = [first.model_copy(update=change) for change in changes]
    assert len({first.digest, *(other.digest for other in others)}) == len(changes) + 1
    assert all(differences(first, other) for other in others)
    assert differences(first, first) == []


def test_what_a_boot_would_change_is_told_line_by_line() -> None:
    old = Assignment(image="a", revision="1", kernel_arguments=["quiet", "x=1"], address="10.77.0.1")
    new = Assignment(image="a", revision="2", kernel_arguments=["quiet", "x=2"])
    assert differences(old, new) == [
        "image: a 1 -> a 2",
        "kernel arguments: -x=1",
        "kernel arguments: +x=2",
        "address: 10.77.0.1 -> none",
    ]


@pytest.mark.parametrize("word", ["mx.layers=x", "ip=dhcp", "two words", 'a"b'])
def test_kernel_arguments_cannot_take_over_the_boot(word: str) -> None:
    for kind in (NodeSpec, ClusterSpec):
        with pytest.raises(ValidationError):
            kind.model_validate({"kernelArguments": [word]})


def test_a_password_does_not_get_into_the_cluster() -> None:
    with pytest.raises(ValidationError, match="credentials"):
        PowerSpec(driver=PowerDriver.REDFISH, address="https://root:secret@10.77.0.99")


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"image": "a", "nodes": ["n1"]}, "both given"),
        ({"revision": "x"}, "one of an image"),
        ({"maxUnavailable": 0}, "greater than or equal to 1"),
    ],
)
def test_a_rollout_says_one_thing(spec: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        RolloutSpec.model_validate(spec)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({"names": "node"}, "has to hold"),
        ({"names": "n{}-{}"}, "has to hold"),
        ({"macs": ["52:54:00:00:00:01", "52:54:00:00:00:01"]}, "listed twice"),
        ({"macs": ["52:54:00:00:00:01"], "count": 3}, "both given"),
        ({"count": 3, "addresses": "10.77.0.1-10.77.0.2"}, "widen the range"),
        ({"addresses": "10.77.0.9-10.77.0.2"}, "ends before it begins"),
    ],
)
def test_a_set_that_makes_no_sense_is_refused(spec: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        NodeSetSpec.model_validate(spec)


def test_a_range_is_two_addresses_or_a_network() -> None:
    low, high = address_range("10.77.0.11-10.77.0.74")
    assert high - low + 1 == 64
    low, high = address_range("10.77.0.64/26")
    assert high - low + 1 == 62


def test_the_agent_reads_what_it_booted_with(tmp_path: Path) -> None:
    line, file = tmp_path / "cmdline", tmp_path / "assigned"
    line.write_text("quiet mx.assigned=abc mx.layers=a:b\n")
    assert assigned_digest(line, file) == "abc"
    file.write_text("def\n")
    assert assigned_digest(line, file) == "def"
    file.unlink()
    line.write_text("quiet\n")
    assert assigned_digest(line, file) == ""
