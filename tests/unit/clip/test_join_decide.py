"""Who gets a certificate, who waits, who does not."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip.join.decide import Question, Refuse, Sign, Wait, decide
from clip.tokens import Token
from crds.join import JoinRecord, JoinState, Proof

MAC, OTHER = "52:54:00:77:00:01", "52:54:00:77:00:02"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NO_TOKEN = "it shows no token"


def question(**changes: object) -> Question:
    plain = Question(MAC, "key", None, NO_TOKEN, None, {"n1": MAC, "n2": OTHER}, frozenset())
    return replace(plain, **changes)  # type: ignore[arg-type]


def token(node: str | None, proof: Proof = Proof.BOOTED) -> Token:
    return Token(mac=MAC, node=node, proof=proof, until=NOON)


def record(key: str = "key", **fields: object) -> JoinRecord:
    return JoinRecord.model_validate({"state": JoinState.WAITING, "proof": Proof.GIVEN, "key": key, "asked": NOON, **fields})


def test_a_declared_machine_that_we_booted_is_signed() -> None:
    assert decide(question(token=token("n1"))) == Sign("n1", Proof.BOOTED)


def test_nobody_gets_anything_for_a_known_mac_alone() -> None:
    for alive in (frozenset[str](), frozenset({"n1"})):
        assert decide(question(alive=alive)) == Refuse(NO_TOKEN)
        assert decide(question(alive=alive, record=record("another", node="n1", approved="n1"))) == Refuse(NO_TOKEN)


def test_a_booted_machine_asks_from_its_own_address() -> None:
    at_home = question(token=token("n1"), home="10.77.0.11", address="10.77.0.11")
    assert decide(at_home) == Sign("n1", Proof.BOOTED)
    elsewhere = decide(replace(at_home, address="10.77.0.12"))
    assert isinstance(elsewhere, Refuse) and "n1 boots as 10.77.0.11, but 10.77.0.12 asks" in elsewhere.reason
    assert decide(replace(at_home, address="10.77.0.12", token=token("n1", Proof.GIVEN))) == Sign("n1", Proof.GIVEN)


def test_nobody_takes_the_place_of_a_living_node() -> None:
    living = question(token=token("n1"), alive=frozenset({"n1"}))
    assert isinstance(decide(living), Wait)
    assert isinstance(decide(replace(living, record=record("another", node="n1"))), Wait)
    assert decide(replace(living, record=record(node="n1"))) == Sign("n1", Proof.BOOTED)  # it is the one that lives
    assert decide(replace(living, alive=frozenset())) == Sign("n1", Proof.BOOTED)


def test_a_person_names_a_new_node_by_the_token() -> None:
    assert decide(question(mac="52:54:00:77:00:09", token=token("n9", Proof.GIVEN))) == Sign("n9", Proof.GIVEN, declare=True)


def test_a_token_without_a_name_waits_for_approval() -> None:
    anonymous = question(token=token(None, Proof.GIVEN))
    waits = decide(anonymous)
    assert isinstance(waits, Wait) and "mxctl approve node" in waits.reason  # although a node with its MAC is declared
    assert isinstance(decide(question(record=record())), Wait)  # later, when the token has ended
    assert decide(question(record=record(approved="n1"))) == Sign("n1", Proof.GIVEN)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"token": token("n2", Proof.GIVEN)}, "it is node n1, not n2"),
        ({"mac": "52:54:00:77:00:09", "token": token("n2", Proof.GIVEN)}, "node n2 is another machine"),
        ({"token": token("n1"), "nodes": {}}, "not declared any more"),
        ({"token": token("n1"), "refused": True}, "it was refused by hand"),
        ({"record": record(approved="n1", node="n1"), "refused": True}, "it was refused by hand"),
    ],
)
def test_refusals_say_why(changes: dict[str, object], words: str) -> None:
    refused = decide(question(**changes))
    assert isinstance(refused, Refuse) and words in refused.reason


names = st.sampled_from(["n1", "n2", "n3"])


@given(
    token=st.none() | st.builds(token, st.none() | names, st.sampled_from(Proof)),
    record=st.none() | st.builds(record, st.sampled_from(["key", "thief"]), node=st.none() | names, approved=st.none() | names),
    alive=st.frozensets(names),
    refused=st.booleans(),
    nodes=st.dictionaries(names, st.sampled_from([MAC, OTHER, None])),
)
def test_whoever_is_signed_has_shown_something(
    token: Token | None, record: JoinRecord | None, alive: frozenset[str], refused: bool, nodes: dict[str, str | None]
) -> None:
    answer = decide(question(token=token, record=record, alive=alive, refused=refused, nodes=nodes))
    if isinstance(answer, Sign):
        ours = record if record is not None and record.key == "key" else None
        assert not refused
        assert token is not None or ours is not None
        assert answer.node in {token.node if token else None, ours.node if ours else None, ours.approved if ours else None}
        assert nodes.get(answer.node) in (MAC, None)
        assert answer.node not in alive or ours is not None
        assert answer.declare == (answer.node not in nodes)
