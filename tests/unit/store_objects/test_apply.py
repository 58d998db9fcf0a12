"""apply: what a file says comes to stand, what it never said stays; and a set is judged before its first write."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crds import keys
from crds.balancepolicy import BalancePolicy
from crds.job import Job
from crds.meta import LAST_APPLIED
from crds.node import Node
from store.admission import Refused
from store.apply import apply, validate_all
from store.errors import Conflict, Fenced, Invalid
from store.kv import Compare, Put, Target
from store.memory import MemoryKV
from store.store import Store
from tests.resources import document, documents, job

NODE = """
apiVersion: mx/v1
kind: Node
metadata: {{name: {name}, labels: {labels}}}
spec: {spec}
"""

JOB = """
apiVersion: mx/v1
kind: Job
metadata: {name: w}
spec:
  command: [sleep, "1"]
  resources: {cpu: 500m}
"""


def node_text(name: str = "n1", labels: str = "{}", spec: str = "{}") -> str:
    return NODE.format(name=name, labels=labels, spec=spec)


async def test_created_unchanged_configured(store: Store, kv: MemoryKV) -> None:
    assert (await apply(store, document(node_text()))).verb == "created"
    before = kv.server.revision
    assert (await apply(store, document(node_text()))).verb == "unchanged"
    assert kv.server.revision == before
    done = await apply(store, document(node_text(spec="{unschedulable: true}")))
    assert (done.verb, done.obj) == ("configured", await store.get(Node, "n1"))


async def test_another_spelling_is_no_difference(store: Store) -> None:
    await apply(store, document(JOB))
    assert (await apply(store, document(JOB.replace("500m", '"0.5"')))).verb == "unchanged"
    assert (await apply(store, document(JOB.replace("{name: w}", "{name: w, namespace: default}")))).verb == "unchanged"


async def test_a_field_that_left_the_file_gets_its_default_back(store: Store) -> None:
    await apply(store, document(node_text(labels="{a: b, c: d}", spec="{address: 10.77.0.1, unschedulable: true}")))
    await apply(store, document(node_text(labels="{a: b}")))
    found = await store.get(Node, "n1")
    assert (found.spec.address, found.spec.unschedulable, found.metadata.labels) == (None, False, {"a": "b"})


async def test_what_others_set_is_kept(store: Store) -> None:
    await apply(store, document(node_text(labels="{a: b}", spec="{address: 10.77.0.1}")))

    def cordon(node: Node) -> None:
        node.spec.unschedulable = True
        node.metadata.labels["theirs"] = "1"
        node.metadata.annotations["note"] = "x"

    await store.change(Node, "n1", None, cordon)
    await store.change_status(Node, "n1", None, lambda n: setattr(n.status, "jobs", 3))
    await apply(store, document(node_text(labels="{c: d}", spec="{address: 10.77.0.2}")))
    found = await store.get(Node, "n1")
    assert (found.spec.unschedulable, found.spec.address, found.status.jobs) == (True, "10.77.0.2", 3)
    assert found.metadata.labels == {"theirs": "1", "c": "d"}
    assert found.metadata.annotations["note"] == "x"


async def test_lists_are_replaced_whole(store: Store) -> None:
    await apply(store, document(node_text(spec="{taints: [{key: a}, {key: b}]}")))
    await apply(store, document(node_text(spec="{taints: [{key: c}]}")))
    assert [t.key for t in (await store.get(Node, "n1")).spec.taints] == ["c"]


async def test_an_object_made_otherwise_is_adopted(store: Store) -> None:
    await store.create(job())
    wish = JOB.replace('[sleep, "1"]', '["true"]')
    assert (await apply(store, document(wish))).verb == "configured"
    assert (await apply(store, document(wish))).verb == "unchanged"
    await apply(store, document(wish.replace("  resources: {cpu: 500m}\n", "")))
    assert (await store.get(Job, "w")).spec.resources.cpu is None


async def test_what_get_prints_can_be_applied(store: Store) -> None:
    made = await store.create(job())
    await store.change_status(Job, "w", None, lambda j: setattr(j.status, "node", "n1"))
    await apply(store, made.to_data())
    found = await store.get(Job, "w")
    assert (found.metadata.finalizers, found.status.node, found.metadata.uid) == (made.metadata.finalizers, "n1", made.metadata.uid)
    last = json.loads(found.metadata.annotations[LAST_APPLIED])
    assert set(last) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(last["metadata"]) == {"name", "namespace", "labels", "annotations"}


async def test_null_counts_as_not_written(store: Store) -> None:
    await apply(store, document(node_text(spec="{address: 10.77.0.1}")))
    await apply(store, document(node_text(spec="{address: null}")))
    assert (await store.get(Node, "n1")).spec.address is None


@pytest.mark.parametrize("annotation", ["{", "[]", '{"spec": 5}', '{"metadata": []}', '{"metadata": {"labels": 3}}'])
async def test_a_damaged_annotation_stops_nothing(store: Store, annotation: str) -> None:
    await apply(store, document(node_text(labels="{a: b}")))
    await store.change(Node, "n1", None, lambda n: n.metadata.annotations.update({LAST_APPLIED: annotation}))
    await apply(store, document(node_text(labels="{c: d}")))
    assert (await store.get(Node, "n1")).metadata.labels == {"a": "b", "c": "d"}


async def test_the_merged_result_is_validated(store: Store) -> None:
    text = "apiVersion: mx/v1\nkind: BalancePolicy\nmetadata: {name: p}\nspec: {memory: %s}\n"
    await apply(store, document(text % "{lowWater: 0.3}"))
    await store.change(BalancePolicy, "p", None, lambda p: setattr(p.spec.memory, "high_water", 0.4))
    with pytest.raises(Refused, match=r"^balancepolicy/p: spec\.memory: lowWater 0\.6 is above highWater 0\.4$"):
        await apply(store, document(text % "{lowWater: 0.6}"))


async def test_a_dry_run_checks_and_writes_nothing(store: Store, kv: MemoryKV) -> None:
    before = kv.server.revision
    planned = await apply(store, document(JOB), dry_run=True)
    assert (planned.verb, planned.obj.metadata.finalizers, kv.server.revision) == ("created", ["mx/stop"], before)
    await apply(store, document(node_text("n1", spec="{address: 10.77.0.1}")))
    await apply(store, document(node_text("n2")))
    before = kv.server.revision
    with pytest.raises(Refused, match="belongs to node/n1"):
        await apply(store, document(node_text("n2", spec="{address: 10.77.0.1}")), dry_run=True)
    changed = await apply(store, document(node_text("n2", spec="{unschedulable: true}")), dry_run=True)
    assert changed.verb == "configured" and isinstance(changed.obj, Node) and changed.obj.spec.unschedulable
    assert kv.server.revision == before


async def test_what_leaves_cannot_be_changed(store: Store) -> None:
    await apply(store, document(JOB))
    await store.delete(Job, "w")
    assert (await apply(store, document(JOB))).verb == "unchanged"
    with pytest.raises(Refused, match="job/w: is being deleted"):
        await apply(store, document(JOB.replace("500m", "600m")))


async def test_a_broken_object_says_what_to_do(store: Store, kv: MemoryKV) -> None:
    await kv.txn([], [Put(keys.object_key(Job, "w", "default"), b'{"kind": "Job"}')])
    with pytest.raises(Invalid, match=r"^job/w: the stored value is broken: .* delete it and apply it again$"):
        await apply(store, document(JOB))


async def test_a_race_is_run_again(store: Store, kv: MemoryKV) -> None:
    other = Store(kv.client())

    def overtake(call: str, moment: str) -> None:
        if (call, moment) == ("txn", "before"):
            kv.hook = None
            raced = node_raw(other)
            kv.server.txn([], [Put(keys.object_key(Node, "n1"), raced)], [])

    kv.hook = overtake
    assert (await apply(store, document(node_text(labels="{a: b}")))).verb == "configured"
    assert (await store.get(Node, "n1")).metadata.labels == {"a": "b", "theirs": "1"}


def node_raw(_: Store) -> bytes:
    return b'{"kind":"Node","metadata":{"name":"n1","uid":"u","generation":1,"labels":{"theirs":"1"}}}'


async def test_fenced_is_not_run_again(store: Store) -> None:
    with pytest.raises(Fenced):
        await apply(store.guarded(Compare("/mx/leader", Target.CREATE, 3)), document(JOB))


async def test_somebody_who_never_stops_wins(store: Store, kv: MemoryKV) -> None:
    await apply(store, document(node_text()))

    def overtake(call: str, moment: str) -> None:
        if (call, moment) == ("txn", "before"):
            there = kv.server.get(keys.object_key(Node, "n1"))
            assert there is not None
            kv.server.txn([], [Put(there.key, there.value)], [])

    kv.hook = overtake
    with pytest.raises(Conflict, match="node/n1"):
        await apply(store, document(node_text(labels="{a: b}")))


async def test_an_unknown_kind(store: Store) -> None:
    with pytest.raises(Invalid, match='unknown kind "Jobb"; there are: Cluster'):
        await apply(store, {"kind": "Jobb"})
    with pytest.raises(Refused, match=r"^job: metadata: is missing; spec: is missing$"):
        await apply(store, {"kind": "Job"})


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "address": st.sampled_from(["10.77.0.1", "10.77.0.2"]),
        "unschedulable": st.booleans(),
        "taints": st.lists(st.sampled_from([{"key": "a"}, {"key": "b", "value": "c"}]), max_size=2),
    },
)
LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))


def node_data(labels: dict[str, str], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "mx/v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}, "spec": spec}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(LABELS, SPECS), min_size=1, max_size=4), LABELS)
def test_any_series_of_files_ends_as_the_last_one_says(
    files: list[tuple[dict[str, str], dict[str, Any]]], theirs: dict[str, str]
) -> None:
    """Foreign labels survive every file, and the last file twice is unchanged."""
    import asyncio

    async def run() -> None:
        store = Store(MemoryKV())
        foreign = {f"their-{name}": value for name, value in theirs.items()}
        await apply(store, node_data({}, {}))
        await store.change(Node, "n1", None, lambda n: n.metadata.labels.update(foreign))
        for labels, spec in files:
            await apply(store, node_data(labels, spec))
        labels, spec = files[-1]
        assert (await apply(store, node_data(labels, spec))).verb == "unchanged"
        found = await store.get(Node, "n1")
        assert found.metadata.labels == foreign | labels
        assert found.spec == Node.model_validate(node_data(labels, spec)).spec

    asyncio.run(run())


class TestASet:
    async def test_all_is_well(self, store: Store, kv: MemoryKV) -> None:
        before = kv.server.revision
        text = (
            node_text("n1", spec="{mac: 52:54:00:00:00:01}")
            + "---"
            + node_text("n2", spec="{mac: 52:54:00:00:00:02}")
            + "---"
            + JOB
        )
        assert await validate_all(store, documents(text)) == []
        assert kv.server.revision == before

    async def test_one_name_twice(self, store: Store) -> None:
        text = JOB + "---" + JOB.replace("name: w", "name: w, namespace: default")
        (problem,) = await validate_all(store, documents(text))
        assert str(problem) == "c.yaml:11: metadata.name: job/w is declared at c.yaml:2 already: keep one of the two"

    async def test_one_name_in_two_namespaces_is_fine(self, store: Store) -> None:
        text = JOB + "---" + JOB.replace("name: w", "name: w, namespace: alice")
        assert await validate_all(store, documents(text)) == []

    async def test_the_same_file_twice(self, store: Store) -> None:
        problems = await validate_all(store, documents(JOB) + documents(JOB))
        assert [p.message for p in problems] == ["job/w is declared at c.yaml:2 already: keep one of the two"]

    async def test_one_mac_twice(self, store: Store) -> None:
        text = node_text("n1", spec="{mac: 52:54:00:00:00:01}") + "---" + node_text("n2", spec="\n  mac: 52:54:00:00:00:01")
        (problem,) = await validate_all(store, documents(text))
        assert str(problem) == (
            "c.yaml:11: spec.mac: 52:54:00:00:00:01 belongs to node/n1 (c.yaml:5) already: give one of the two another"
        )

    async def test_a_mac_that_a_stored_node_has(self, store: Store) -> None:
        await apply(store, document(node_text("old", spec="{mac: 52:54:00:00:00:01}")))
        (problem,) = await validate_all(store, documents(node_text("n1", spec="{mac: 52:54:00:00:00:01}")))
        assert str(problem) == "c.yaml:5: spec.mac: 52:54:00:00:00:01 belongs to node/old already: give one of the two another"

    async def test_a_node_put_behind_our_back_counts(self, store: Store, kv: MemoryKV) -> None:
        raw = b'{"kind":"Node","metadata":{"name":"old"},"spec":{"mac":"52:54:00:00:00:01"}}'
        await kv.txn([], [Put(keys.object_key(Node, "old"), raw)])
        (problem,) = await validate_all(store, documents(node_text("n1", spec="{mac: 52:54:00:00:00:01}")))
        assert "belongs to node/old" in problem.message

    async def test_an_address_may_be_handed_on_in_order(self, store: Store) -> None:
        await apply(store, document(node_text("n1", spec="{address: 10.77.0.1}")))
        free, take = node_text("n1", spec="{address: 10.77.0.2}"), node_text("n2", spec="{address: 10.77.0.1}")
        assert await validate_all(store, documents(free + "---" + take)) == []
        (problem,) = await validate_all(store, documents(take + "---" + free))
        assert "belongs to node/n1 already" in problem.message
        for one in documents(free + "---" + take):
            await apply(store, one)

    async def test_fields_that_cannot_change_are_found_with_their_line(self, store: Store) -> None:
        await apply(store, document(JOB))
        (problem,) = await validate_all(store, documents(JOB.replace("sleep", "wait")))
        assert str(problem) == "c.yaml:6: spec.command: cannot be changed: delete job/w and create it again"

    async def test_the_field_that_is_too_large_is_found_with_its_line(self, store: Store) -> None:
        (problem,) = await validate_all(store, documents(JOB + "  env:\n    A: b\n    DATA: " + "x" * 600_000))
        assert str(problem).startswith("c.yaml:10: spec.env.DATA: too large: with it the object takes 12")
        assert problem.message.endswith("the copy that apply keeps included; 1048576 are allowed")

    async def test_a_broken_stored_object(self, store: Store, kv: MemoryKV) -> None:
        await kv.txn([], [Put(keys.object_key(Job, "w", "default"), b"{")])
        (problem,) = await validate_all(store, documents(JOB))
        assert str(problem).startswith("c.yaml:2: job/w: the stored value is broken")

    async def test_everything_wrong_is_told(self, store: Store) -> None:
        await apply(store, document(JOB))
        text = JOB.replace("sleep", "wait") + "---" + JOB + "---" + node_text(spec="{address: 10.77.0.1}") + "---"
        text += node_text("n2", spec="{address: 10.77.0.1}")
        assert [p.path for p in await validate_all(store, documents(text))] == [
            ("spec", "command"),
            ("metadata", "name"),
            ("spec", "address"),
        ]


class TestTheNetwork:
    """What a set leaves behind has to be a network in which every node can be served."""

    CLUSTER = "apiVersion: mx/v1\nkind: Cluster\nmetadata: {name: rack}\nspec: {network: {cidr: %s, jobRange: null}}\n"
    NODE = "apiVersion: mx/v1\nkind: Node\nmetadata: {name: n1}\nspec: {address: %s}\n"

    async def wrong(self, store: Store, *texts: str) -> list[str]:
        found = await validate_all(store, documents("---\n".join(texts)))
        return [f"{each.line}: {'.'.join(map(str, each.path))}: {each.message}" for each in found]

    async def test_a_stored_node_that_a_new_network_leaves_outside(self, store: Store) -> None:
        await apply(store, document(self.NODE % "10.77.0.11"))
        [line] = await self.wrong(store, self.CLUSTER % "10.78.0.0/24")
        assert line.startswith("4: spec.network: node/n1 would not fit: 10.77.0.11 is outside")

    async def test_both_may_change_together_in_either_order(self, store: Store) -> None:
        await apply(store, document(self.NODE % "10.77.0.11"))
        assert await self.wrong(store, self.CLUSTER % "10.78.0.0/24", self.NODE % "10.78.0.11") == []
        assert await self.wrong(store, self.NODE % "10.78.0.11", self.CLUSTER % "10.78.0.0/24") == []

    async def test_the_stored_cluster_counts_and_none_is_no_rule(self, store: Store) -> None:
        assert await self.wrong(store, self.NODE % "192.168.0.1") == []
        await apply(store, document(self.CLUSTER % "10.78.0.0/24"))
        [line] = await self.wrong(store, self.NODE % "192.168.0.1")
        assert line.startswith("4: spec.address: 192.168.0.1 is outside")
