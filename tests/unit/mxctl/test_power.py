"""mxctl power: what is asked of mx-clip, and what is told of its answer."""

from datetime import timedelta

import pytest

from crds import keys
from crds.node import Node
from crds.power import PowerAction, PowerDriver, PowerOutcome, PowerPhase, PowerRequest, PowerSpec, PowerState
from store.kv import Put
from store.objects import utcnow
from store.store import Store
from tests.resources import node
from tests.unit.mxctl.terminal import Script, Terminal


def answers(phase: PowerPhase, message: str = "") -> Script:
    """An mx-clip that makes that of the next request."""

    async def work(store: Store) -> None:
        async for _ in store.kv.watch(keys.POWER, revision=1):
            kv, known = await store.kv.get(keys.power_request("n1")), await store.kv.get(keys.power_outcome("n1"))
            if kv is not None and (known is None or known.mod_revision < kv.mod_revision):
                request = PowerRequest.model_validate_json(kv.value)
                outcome = PowerOutcome(id=request.id, phase=phase, state=PowerState.ON, message=message, time=utcnow())
                await store.kv.txn((), (Put(keys.power_outcome("n1"), outcome.to_json()),))
                return

    return work


@pytest.fixture
def rack(terminal: Terminal) -> Terminal:
    one: Node = node("n1")
    one.spec.power = PowerSpec(driver=PowerDriver.QMP, address="/q")
    terminal.create(one, node("n2"))
    return terminal


def asked(rack: Terminal) -> PowerRequest:
    kv = rack.do(lambda store: store.kv.get(keys.power_request("n1")))
    assert kv is not None
    return PowerRequest.model_validate_json(kv.value)


def test_a_machine_is_switched(rack: Terminal) -> None:
    said = rack.run("power", "reset", "n1", meanwhile=answers(PowerPhase.DONE))
    assert (said.code, said.out) == (0, "node/n1 reset: on\n")
    request = asked(rack)
    assert (request.action, request.only_empty, request.from_network, request.requested_by) == (
        PowerAction.RESET,
        True,
        True,
        "user",
    )
    assert rack.run("power", "status", "n1", "--force", meanwhile=answers(PowerPhase.DONE)).out == "node/n1 is on\n"
    assert not asked(rack).only_empty


def test_what_did_not_work_is_told(rack: Terminal) -> None:
    said = rack.run("power", "off", "n1", meanwhile=answers(PowerPhase.REFUSED, "jobs live on it: default/w"))
    assert (said.code, said.err) == (1, "Error: node/n1: off: Refused: jobs live on it: default/w\n")


def test_an_mx_clip_that_is_not_there_is_told(rack: Terminal) -> None:
    said = rack.run("power", "on", "n1", "--timeout", "0.1s")
    assert said.code == 1
    assert "does mx-clip run on the head?" in said.err


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["on", "n2"], "Error: node/n2 has no power driver: set spec.power"),
        (["on", "n9"], "Error from server (NotFound): node/n9 does not exist"),
    ],
)
def test_nothing_is_asked_that_cannot_be(rack: Terminal, words: list[str], error: str) -> None:
    before = rack.revision
    said = rack.run("power", *words)
    assert said.code == 1
    assert said.err.startswith(error)
    assert rack.revision == before


def test_two_do_not_switch_one_machine_at_once(rack: Terminal) -> None:
    request = PowerRequest(
        id="1",
        action=PowerAction.RESET,
        requested_by="rollout/r",
        requested_at=utcnow(),
        expires_at=utcnow() + timedelta(minutes=1),
    )
    rack.put(keys.power_request("n1"), request)
    said = rack.run("power", "off", "n1")
    assert said.code == 1
    assert said.err.startswith("Error: node/n1 is being switched: rollout/r asked for reset")
    assert asked(rack).id == "1"
