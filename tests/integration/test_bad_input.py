"""Bad input, as a person meets it: a process, real etcd; one line with file, line and field, exit code 1, nothing written."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from crds import keys
from store.etcd import EtcdKV
from store.kv import Put
from tests.etcd_server import EtcdServer

GOOD = """apiVersion: mx/v1
kind: Node
metadata: {name: good}
spec:
  mac: 52:54:00:77:00:01
---
"""
JOB = """apiVersion: mx/v1
kind: Job
metadata: {name: w}
spec:
  command: [work]
"""
NODE = """apiVersion: mx/v1
kind: Node
metadata: {name: other}
spec:
  mac: 52:54:00:77:00:%s
"""


CLUSTER = """apiVersion: mx/v1
kind: Cluster
metadata: {name: rack}
spec: {network: {cidr: 10.77.0.0/24}}
"""
TWINS = """apiVersion: mx/v1
kind: Node
metadata: {name: other%s}
spec:
  address: 10.77.0.9
"""


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    with EtcdServer() as server:
        yield server


@pytest.fixture
def config(etcd: EtcdServer, tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump({"contexts": [{"name": "test", "endpoints": [etcd.endpoint]}], "currentContext": "test"}))
    return path


def mxctl(config: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mxctl", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=config.parent,
        env=os.environ | {"MXCONFIG": str(config)},
    )


def revision(etcd: EtcdServer) -> int:
    """etcd's own: it rises with every write of anybody."""

    async def ask() -> int:
        kv = EtcdKV.connect([etcd.endpoint])
        try:
            return (await kv.list(keys.ROOT)).revision
        finally:
            await kv.close()

    return asyncio.run(ask())


def put(etcd: EtcdServer, key: str, value: bytes) -> None:
    async def write() -> None:
        kv = EtcdKV.connect([etcd.endpoint])
        try:
            await kv.txn((), (Put(key, value),))
        finally:
            await kv.close()

    asyncio.run(write())


@pytest.mark.parametrize(
    ("bad", "where", "what"),
    [
        (JOB + "  comand: [x]\n", "bad.yaml:12: spec.comand", 'unknown field; did you mean "command"?'),
        (JOB + "  placement: {pinned: 1}\n", "bad.yaml:12: spec.placement.pinned", "must be true or false, not the number 1"),
        (JOB + "  resources: {memory: 12Zi}\n", "bad.yaml:12: spec.resources.memory", "is not an amount of memory"),
        (f"{JOB}---\n{JOB}", "bad.yaml:15: metadata.name", "w"),
        (JOB.replace("Job", "Jop"), "bad.yaml:8: kind", 'unknown kind "Jop"; did you mean "Job"?'),
        (JOB + "  env: {A: [\n", "bad.yaml:13", "broken YAML: "),
        (JOB + "  env: {A: " + "x" * 3_000_000 + "}\n", "bad.yaml:7", "MiB large"),
        (NODE % "01", "bad.yaml:11: spec.mac", "52:54:00:77:00:01 belongs to node/good"),
        (NODE % "0g", "bad.yaml:11: spec.mac", '"52:54:00:77:00:0g" is no MAC address; write e.g. 52:54:00:77:00:01'),
        (NODE.replace("52:", "53:") % "09", "bad.yaml:11: spec.mac", "53:54:00:77:00:09 is a group's address"),
        (NODE % "09" + "  address: 10.77.0.300\n", "bad.yaml:12: spec.address", "300"),
        (f"{CLUSTER}---\n{NODE % '09'}  address: 10.78.0.9\n", "bad.yaml:17: spec.address", "outside of the cluster's network"),
        (f"{CLUSTER}---\n{NODE % '09'}  address: 10.77.0.200\n", "bad.yaml:17: spec.address", "lies in jobRange 10.77.0.128/25"),
        (f"{TWINS % '8'}---\n{TWINS % '9'}", "bad.yaml:17: spec.address", "10.77.0.9 belongs to node/other8 (bad.yaml:11) already"),
    ],
    ids=[
        *("unknown field", "wrong type", "bad quantity", "duplicate name", "unknown kind", "broken YAML", "3 MB", "one MAC twice"),
        *("broken MAC", "MAC of a group", "no address", "outside", "in the job range", "one address twice"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(etcd: EtcdServer, config: Path, bad: str, where: str, what: str) -> None:
    (config.parent / "bad.yaml").write_text(GOOD + bad)
    before = revision(etcd)
    said = mxctl(config, "apply", "-f", "bad.yaml")
    assert (said.returncode, said.stdout) == (1, "")
    [line] = said.stderr.splitlines()
    assert line.startswith(f"Error: {where}: ")
    assert what in line
    assert revision(etcd) == before


def test_a_mac_that_a_stored_node_has(etcd: EtcdServer, config: Path) -> None:
    (config.parent / "first.yaml").write_text(NODE.replace("other", "owner") % "77")
    assert mxctl(config, "apply", "-f", "first.yaml").stdout == "node/owner created\n"
    (config.parent / "bad.yaml").write_text(JOB + "---\n" + NODE % "77")
    before = revision(etcd)
    said = mxctl(config, "apply", "-f", "bad.yaml")
    assert said.returncode == 1
    [line] = said.stderr.splitlines()
    assert line.startswith("Error: bad.yaml:11: spec.mac: 52:54:00:77:00:77 belongs to node/owner")
    assert revision(etcd) == before


def test_a_bad_object_behind_our_back_is_named_and_can_be_deleted(etcd: EtcdServer, config: Path) -> None:
    put(etcd, "/mx/kinds/jobs/default/bad", b'{"kind": "Job", "spec": 3}')
    said = mxctl(config, "get", "jobs")
    assert said.returncode == 0
    assert any(line.startswith("Warning: job/bad: the stored value is broken: ") for line in said.stderr.splitlines())
    said = mxctl(config, "get", "job", "bad")
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith("Error from server (Invalid): job/bad: ")
    assert mxctl(config, "delete", "job", "bad").stdout == "job/bad deleted\n"


def test_an_etcd_that_is_not_there_is_named_with_its_context(config: Path, tmp_path: Path) -> None:
    nobody = tmp_path / "nobody"
    nobody.write_text(yaml.safe_dump({"contexts": [{"name": "gone", "endpoints": ["127.0.0.1:1"]}], "currentContext": "gone"}))
    said = mxctl(nobody, "get", "nodes")
    assert (said.returncode, said.stdout) == (1, "")
    [line] = said.stderr.splitlines()
    assert line.startswith('Error: etcd of context "gone" at 127.0.0.1:1 does not answer')
