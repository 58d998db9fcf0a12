"""What a machine's messages make of its record."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clip.service.dhcplog import read_line
from clip.service.sighting import Message, observe, worth_writing
from crds.machine import STAGES, Machine

MAC = "52:54:00:77:00:01"
START = datetime(2026, 11, 1, tzinfo=UTC)


def after(*stages: tuple[str, float]) -> Machine:
    machine: Machine | None = None
    for stage, seconds in stages:
        machine = observe(machine, Message(MAC, stage=stage), START + timedelta(seconds=seconds))
    assert machine is not None
    return machine


def seconds(machine: Machine) -> dict[str, float]:
    times = {stage: getattr(machine.boot, stage) for stage in STAGES}
    return {stage: (time - START).total_seconds() for stage, time in times.items() if time is not None}


def test_stages_are_noted_in_their_order() -> None:
    assert seconds(after(("dhcp", 0), ("ipxe", 1), ("kernel", 2), ("root", 3))) == {"dhcp": 0, "ipxe": 1, "kernel": 2, "root": 3}


def test_firmware_and_ipxe_ask_for_an_address_in_one_boot() -> None:
    assert seconds(after(("dhcp", 0), ("dhcp", 4), ("ipxe", 5))) == {"dhcp": 0, "ipxe": 5}


def test_an_address_asked_for_long_ago_is_another_boots() -> None:
    assert seconds(after(("dhcp", 0), ("dhcp", 100))) == {"dhcp": 100}


def test_a_held_machine_asks_again_and_again_in_one_boot() -> None:
    assert seconds(after(("dhcp", 0), ("ipxe", 1), ("ipxe", 4), ("ipxe", 7), ("kernel", 8))) == {"dhcp": 0, "ipxe": 1, "kernel": 8}


def test_a_new_boot_begins_a_new_timeline() -> None:
    assert seconds(after(("dhcp", 0), ("ipxe", 1), ("kernel", 2), ("root", 3), ("dhcp", 50))) == {"dhcp": 50}


def test_the_answer_says_as_what_it_boots() -> None:
    machine = observe(
        None, Message(MAC, stage="ipxe", node="n1", digest="d1", problem="", facts={"vendor": "MX", "memory": "1048576"}), START
    )
    assert (machine.node, machine.digest, machine.hardware.vendor, machine.hardware.memory) == ("n1", "d1", "MX", 2**30)
    held = observe(machine, Message(MAC, stage="ipxe"), START)
    assert (held.node, held.hardware.vendor) == ("", "MX")


def test_a_problem_stays_until_it_is_told_to_be_over() -> None:
    machine = observe(None, Message(MAC, problem="no root"), START)
    assert observe(machine, Message(MAC, stage="root"), START).problem == "no root"
    assert observe(machine, Message(MAC, stage="ipxe", problem=""), START).problem == ""


@given(
    st.dictionaries(
        st.sampled_from(["vendor", "serial", "memory", "cpus", "modules", "large", "cores", "firmware", "else"]),
        st.text(max_size=300),
    )
)
def test_whatever_a_machine_claims_can_be_written(facts: dict[str, str]) -> None:
    machine = observe(None, Message(MAC, facts=facts), START)
    assert Machine.model_validate_json(machine.to_json()) == machine
    assert len(machine.hardware.vendor) <= 64


def test_that_it_was_heard_again_is_written_now_and_then_only() -> None:
    machine = after(("dhcp", 0), ("ipxe", 1))
    soon = observe(machine, Message(MAC, stage="ipxe"), START + timedelta(seconds=4))
    assert not worth_writing(machine, soon)
    assert worth_writing(machine, observe(machine, Message(MAC, stage="ipxe"), START + timedelta(seconds=12)))
    assert worth_writing(machine, observe(machine, Message(MAC, stage="kernel"), START + timedelta(seconds=4)))
    assert worth_writing(None, machine)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "Nov 23 09:05:49 dnsmasq-dhcp[7]: 873754461 DHCPACK(br0) 10.77.0.115 52:54:00:77:00:01 n1",
            Message(MAC, stage="dhcp", address="10.77.0.115"),
        ),
        (
            "Nov 23 09:05:49 dnsmasq-dhcp[7]: 873754461 DHCPDISCOVER(br0) 52:54:00:77:00:01 no address available",
            Message(MAC, problem="DHCP gives it no address: no address available"),
        ),
        ("Nov 23 09:05:49 dnsmasq-dhcp[7]: 873754461 DHCPDISCOVER(br0) 52:54:00:77:00:01 ", None),
        ("Nov 23 09:05:49 dnsmasq-dhcp[7]: 873754461 DHCPOFFER(br0) 10.77.0.115 52:54:00:77:00:01 ", None),
        ("Nov 23 09:05:49 dnsmasq-dhcp[7]: RTR-SOLICIT(br0) 52:54:00:77:00:01", None),
    ],
)
def test_dnsmasqs_log_is_understood(line: str, message: Message | None) -> None:
    assert read_line(line) == message
