"""What a message of a machine changes in what is known of it. Pure: record before, message, time -> record after."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from clip.service import smbios
from crds.machine import BootTimeline, Hardware, Machine

SEEN_EVERY = timedelta(seconds=10)
"""``last_seen`` alone is not worth a write more often than this."""
SAME_BOOT = timedelta(seconds=60)
"""Who asks for an address once more within this time is still in the same boot: firmware first, then iPXE."""
_LONGEST = 200
_STAGES_HEARD = ("dhcp", "ipxe", "kernel", "root")


@dataclass(frozen=True, slots=True)
class Message:
    """One thing heard of a machine. ``stage`` as in crds.machine.STAGES, "" when it only shows that the machine is there.

    ``problem`` None: it says nothing of problems; "" : what was wrong is not any more.
    """

    mac: str
    stage: str = ""
    address: str = ""
    node: str = ""
    digest: str = ""
    problem: str | None = None
    facts: dict[str, str] = field(default_factory=dict)


def observe(before: Machine | None, message: Message, now: datetime) -> Machine:
    """The record after the message."""
    known = before or Machine(mac=message.mac, first_seen=now, last_seen=now)
    changes: dict[str, object] = {"last_seen": now}
    if message.stage in _STAGES_HEARD:
        changes["boot"] = _reached(known.boot, message.stage, now)
    changes["hardware"] = _learned(known.hardware, message.facts)
    if message.address:
        changes["address"] = message.address
    if message.stage == "ipxe":  # the answer to this is what says as what it boots
        changes |= {"node": message.node, "digest": message.digest}
    if message.problem is not None:
        changes["problem"] = message.problem[:_LONGEST]
    return known.model_copy(update=changes)


def worth_writing(stored: Machine | None, now: Machine) -> bool:
    """Whether the difference is more than that it was heard again a moment ago."""
    if stored is None:
        return True
    return now.last_seen - stored.last_seen >= SEEN_EVERY or now.model_copy(update={"last_seen": stored.last_seen}) != stored


def _reached(boot: BootTimeline, stage: str, now: datetime) -> BootTimeline:
    """A stage before or at the one that was reached last begins a new boot; but iPXE asks for an address once more, and while a
    machine is held it asks again and again what to boot: that is still the same boot."""
    at = _STAGES_HEARD.index(stage)
    reached = _STAGES_HEARD.index(boot.stage) if boot.stage in _STAGES_HEARD else len(_STAGES_HEARD) if boot.stage else -1
    if stage == "ipxe" and boot.stage == "ipxe":
        return boot
    if reached < at:
        return boot.model_copy(update={stage: now})
    if stage == "dhcp" and boot.dhcp is not None and boot.stage == "dhcp" and now - boot.dhcp < SAME_BOOT:
        return boot
    return BootTimeline.model_validate({stage: now})


def _learned(hardware: Hardware, facts: dict[str, str]) -> Hardware:
    """Only words that could be meant: a machine can claim anything."""
    found = {name: _clean(value) for name, value in facts.items() if value and name in _TEXTS}
    if facts.get("firmware"):
        found["firmware"] = {"pcbios": "bios", "efi": "uefi"}.get(facts["firmware"], "")
    changes: dict[str, object] = {**found}
    memory, cpus = _number(facts.get("memory", "")) << 10, _number(facts.get("cpus", ""))  # as the kernel counts: KiB
    changes["memory"] = memory or smbios.memory(facts.get("modules", ""), facts.get("large", "")) or hardware.memory
    changes["cpus"] = cpus or smbios.cores(facts.get("cores", "")) or hardware.cpus
    return hardware.model_copy(update=changes)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _DIGITS else 0


_DIGITS = 12
_TEXTS = ("vendor", "product", "serial", "uuid")


def _clean(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:64].strip()
