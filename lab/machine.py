"""A virtual machine of a lab: bare, with a network card and memory, without a disk. It boots over the network as real ones do.

QEMU runs in control groups and namespaces of its own, like a node made of namespaces, with the head layer as its root; so it is
found and ended by the same means. Its only links to the host are its directory (console.log, qmp.sock) and a tap on the bridge.
Emulated throughout: a lab needs no virtualisation of the machine it is on.
"""

import json
import re
import shutil
import time
import uuid
from pathlib import Path

from clip.cache import Shelf
from lab import network, qmp
from lab.cgroups import Groups
from lab.errors import LabError
from lab.model import Firmware, Lab, LabNode, Places, ProcessId
from lab.node import KILL_SECONDS, boot
from lab.process import is_alive, wait_gone

MACHINE = "/machine"
"""Its directory, as QEMU sees it."""
CONSOLE = "console.log"
SOCKET = "qmp.sock"
FIRMWARE = Path("usr/share/OVMF")
_ORDERLY_SECONDS = 15.0  # emulated services take their time
_KEYS = ("ctrl", "alt", "delete")
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|.)|[\x00-\x08\x0b\x0c\x0e-\x1f]")


def qemu(node: LabNode, tap: str, lab: str) -> list[str]:
    """The command, with paths as QEMU sees them."""
    assert node.machine is not None
    assert node.memory is not None
    uefi = node.machine.firmware is Firmware.UEFI
    return [
        "/usr/bin/qemu-system-x86_64",
        "-name",
        node.name,
        "-machine",
        f"{'q35' if uefi else 'pc'},graphics=off",  # firmware and iPXE speak on the serial line, too
        "-accel",
        "tcg,thread=multi,tb-size=512",
        "-cpu",
        # A seventh faster to emulate than one that has AVX, which libraries then use. Without random numbers UEFI has no network.
        "Westmere,+rdrand",
        "-m",
        f"{node.memory >> 20}",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-rtc",
        "base=utc",
        "-smbios",
        f"type=1,manufacturer=MX,product=lab,serial={lab}-{node.name},uuid={uuid.uuid5(uuid.NAMESPACE_OID, f'{lab} {node.name}')}",
        "-chardev",
        f"file,id=console,path={MACHINE}/{CONSOLE},append=on",
        "-serial",
        "chardev:console",
        "-qmp",
        f"unix:{MACHINE}/{SOCKET},server=on,wait=off",
        "-netdev",
        f"tap,id=net0,ifname={tap},script=no,downscript=no",
        "-device",
        f"virtio-net-pci,netdev=net0,mac={node.mac},bootindex=0",
        *(_flash() if uefi else ()),
    ]


def _flash() -> list[str]:
    code, variables = f"/{FIRMWARE}/OVMF_CODE_4M.fd", f"{MACHINE}/variables.fd"
    return [
        "-drive",
        f"if=pflash,format=raw,unit=0,readonly=on,file={code}",
        "-drive",
        f"if=pflash,format=raw,unit=1,file={variables}",
    ]


def power_on(places: Places, lab: Lab, node: LabNode) -> ProcessId:
    """Starts it and returns at once, with the identity of its process. The caller has recorded the intent. LabError."""
    if is_alive(node.init):
        raise LabError(f"machine {node.name} of lab {lab.name} is on already; stop it first with mxctl lab stop-node {node.name}")
    assert node.machine is not None
    groups = Groups(lab.name, node.name)
    power_off(places, lab.name, node, hard=True)
    tap = network.plug_in_machine(places, node)
    groups.create(None, None)
    head = Shelf.of(places.state).root(lab.head)
    directory = places.node(node.name)
    for part in ("machine", "upper", "work", "root"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    (directory / "machine" / SOCKET).unlink(missing_ok=True)
    variables = directory / "machine/variables.fd"
    if node.machine.firmware is Firmware.UEFI and not variables.exists():
        shutil.copyfile(head / FIRMWARE / "OVMF_VARS_4M.fd", variables)
    boot_plan = directory / "boot.json"
    boot_plan.write_text(json.dumps(_boot_plan(places, node, groups, head, qemu(node, tap, lab.name))), encoding="utf-8")
    return boot(node, boot_plan)


def _boot_plan(places: Places, node: LabNode, groups: Groups, head: Path, command: list[str]) -> dict[str, object]:
    directory = places.node(node.name)
    return {
        "hostname": node.name,
        "netns": str(network.NAMED / places.netns),  # where the bridge is
        "entrances": [str(path) for path in groups.entrances],
        "views": [[str(source), name] for source, name in groups.views],
        "lower": str(head),
        "upper": str(directory / "upper"),
        "work": str(directory / "work"),
        "root": str(directory / "root"),
        "binds": [[str(directory / "machine"), MACHINE.lstrip("/")]],
        "log": str(directory / "machine/qemu.log"),
        "command": command,
    }


def power_off(places: Places, lab: str, node: LabNode, *, hard: bool) -> None:
    """Ends it. Without ``hard`` its first process is told, by Ctrl-Alt-Del, and ends its services before."""
    if not hard and node.init is not None and is_alive(node.init):
        _ask_to_end(places, node)
        wait_gone(node.init, _ORDERLY_SECONDS)
    groups = Groups(lab, node.name)
    groups.kill(KILL_SECONDS)
    groups.remove()
    network.unplug(places, node.name)


def _ask_to_end(places: Places, node: LabNode) -> None:
    """A machine that boots again is switched off instead. One that has not come to our first process boots again at once."""
    socket = places.node(node.name) / "machine" / SOCKET
    qmp.execute(socket, "set-action", {"reboot": "shutdown"})
    qmp.execute(socket, "send-key", {"keys": [{"type": "qcode", "data": key} for key in _KEYS]})


def console(places: Places, node: LabNode) -> Path:
    """The log of its serial line, over all its boots. LabError."""
    if node.machine is None:
        raise LabError(f"node {node.name} is made of namespaces and has no console; see mxctl lab exec {node.name}")
    return places.node(node.name) / "machine" / CONSOLE


def console_tail(places: Places, node: LabNode, lines: int = 8) -> str:
    """Its last lines, as text."""
    path = console(places, node)
    if not path.exists():
        return "(nothing on its console)"
    return "\n".join(readable(path.read_bytes()[-20000:]).splitlines()[-lines:])


def readable(raw: bytes) -> str:
    """Without what firmware sends to draw on a screen."""
    text = _ESCAPES.sub("", raw.decode("utf-8", errors="replace"))
    return "\n".join(line.rstrip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()) + "\n"


def wait_for_socket(places: Places, node: LabNode, seconds: float = 5.0) -> None:
    """Until QEMU answers. LabError."""
    deadline = time.monotonic() + seconds
    socket = places.node(node.name) / "machine" / SOCKET
    while not socket.exists():
        if time.monotonic() > deadline or not is_alive(node.init):
            raise LabError(f"machine {node.name} does not start: see {socket.with_name('qemu.log')}")
        time.sleep(0.02)
