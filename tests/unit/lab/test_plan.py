"""From what was asked to the nodes of a lab."""

import pytest

from lab import plan
from lab.errors import LabError, NoSuchLab
from lab.model import HEAD, Lab, LabNode


def names(nodes: list[LabNode]) -> list[str]:
    return [node.name for node in nodes]


def test_head_and_nodes() -> None:
    head, first, second = plan.plan_nodes(2, "0.35,200m", "512Mi", cores=2)
    assert (head.name, head.address, head.cpus, head.memory) == (HEAD, "10.77.0.1", None, None)
    assert (first.name, first.address, first.mac, first.cpus, first.memory) == (
        "n1",
        "10.77.0.11",
        "52:54:00:77:00:01",
        0.35,
        2**29,
    )
    assert (second.name, second.address, second.cpus) == ("n2", "10.77.0.12", 0.2)
    assert [service.name for service in head.services] == ["etcd", "reconciler"]
    assert first.services[0].command == ["mx-nodeagent", "--node", "n1", "--endpoints", "10.77.0.1:2379", "--tls", plan.TLS]
    assert {"--client-cert-auth", "--cert-file=/etc/mx/tls/etcd.crt"} <= set(head.services[0].command)
    assert head.services[1].command[-2:] == ["--tls", "/etc/mx/tls"]


def test_addresses_and_macs_stay_unique_in_the_largest_lab() -> None:
    nodes = plan.plan_nodes(99, "0.01", "64Mi", cores=1)
    assert len({node.address for node in nodes}) == len(nodes) == 100
    assert nodes[-1].mac == "52:54:00:77:00:63"


@pytest.mark.parametrize(
    ("nodes", "cpus", "memory", "message"),
    [
        (0, "0.1", "512Mi", "--nodes 0: a lab has 1 to 99 nodes"),
        (100, "0.001", "512Mi", "--nodes 100"),
        (3, "0.1,0.2", "512Mi", "--cpus has 2 values for 3 nodes; give one for all, or one for each"),
        (2, "0.1", "1Gi,1Gi,1Gi", "--memory has 3 values for 2 nodes"),
        (2, "much", "512Mi", "--cpus much: 'much' is not a number of cores"),
        (2, "0.1", "512Mb", "--memory 512Mb: '512Mb' is not an amount of memory"),
        (2, "1", "512Mi", r"2 nodes would share 2 cores, but must stay below the 2 of this machine, .* --cpus 0.7"),
        (2, "0.1,0", "512Mi", "--cpus 0: a node needs 0.01 cores or more"),
        (2, "0.1", "1Mi", "a node needs 64Mi or more"),
    ],
)
def test_what_cannot_be_is_said_clearly(nodes: int, cpus: str, memory: str, message: str) -> None:
    with pytest.raises(LabError, match=message):
        plan.plan_nodes(nodes, cpus, memory, cores=2)


@pytest.mark.parametrize("name", ["", "T", "a-b", "1a", "a/b", "..", "abcdefghijklm"])
def test_names_that_will_not_do(name: str) -> None:
    with pytest.raises(LabError, match="will not do"):
        plan.check_name(name)


def test_hosts_file_names_everybody() -> None:
    nodes = plan.plan_nodes(2, "0.1", "64Mi", cores=2)
    assert plan.hosts_file(nodes, "n1") == "127.0.0.1 localhost\n10.77.0.1 head\n10.77.0.11 n1\n10.77.0.12 n2\n"


def test_an_unknown_node_is_answered_with_the_known_ones() -> None:
    lab = Lab(name="t", base="b", agent="a", config_file="c", nodes=plan.plan_nodes(2, "0.1", "64Mi", cores=2))
    assert names(lab.workers) == ["n1", "n2"]
    with pytest.raises(NoSuchLab, match="lab t has no node 'n3'; it has head, n1, n2"):
        lab.node("n3")
