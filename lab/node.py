"""Switches one node on and off, and runs commands on it.

A node is switched on into a fresh network namespace and fresh control groups, as a machine comes out of a reboot; what it
keeps is its disk, the overlay's upper directory.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clip.cache import Shelf
from clip.image import NodeImage
from lab import network, plan
from lab.cgroups import Groups
from lab.errors import LabError
from lab.model import HEAD, Lab, LabNode, Places, Power, ProcessId
from lab.process import identify, is_alive, send, wait_gone
from nodeagent import init

BOOT = Path(__file__).with_name("node_boot.py")
INIT = Path(init.__file__)
_BOOT_SECONDS = 30
_ORDERLY_SECONDS = 6.0  # the first process gives its services 4
KILL_SECONDS = 15.0


def power_on(places: Places, lab: Lab, node: LabNode) -> ProcessId:
    """Starts the node's first process and returns its identity. The caller has recorded the intent. LabError."""
    if is_alive(node.init):
        raise LabError(f"node {node.name} of lab {lab.name} is on already; stop it first with mxctl lab stop-node {node.name}")
    groups = Groups(lab.name, node.name)
    _clear(places, groups, node.name)
    network.plug_in(places, node)
    groups.create(node.cpus, node.memory)
    _write_disk(places, lab, node)
    boot_plan = places.node(node.name) / "boot.json"
    boot_plan.write_text(json.dumps(_boot_plan(places, lab, node, groups)), encoding="utf-8")
    return boot(node, boot_plan)


def power_off(places: Places, lab: str, node: LabNode | str, *, hard: bool) -> None:
    """Ends everything on the node. ``hard`` is a power cut: its peers hear nothing, not even the end of connections."""
    name = node if isinstance(node, str) else node.name
    if hard:
        network.cut(places, name)
    elif isinstance(node, LabNode) and node.init is not None:
        send(node.init, signal.SIGTERM)
        wait_gone(node.init, _ORDERLY_SECONDS)
    _clear(places, Groups(lab, name), name)


def _clear(places: Places, groups: Groups, name: str) -> None:
    groups.kill(KILL_SECONDS)
    groups.remove()
    if name != HEAD:
        network.unplug(places, name)


def _write_disk(places: Places, lab: Lab, node: LabNode) -> None:
    """The node's own files, into the upper directory while it is not mounted. The rest of its disk stays as it was."""
    directory = places.node(node.name)
    upper = directory / "upper"
    for part in ("upper/etc/mx", "upper/usr/sbin", "upper/var/log/mx", "work", "root"):
        (directory / part).mkdir(parents=True, exist_ok=True)
    shutil.copyfile(INIT, upper / "usr/sbin/mx-init")
    services = [service.to_data() for service in node.services]
    texts = {
        "etc/hostname": f"{node.name}\n",
        "etc/hosts": plan.hosts_file(lab.nodes, node.name),
        "etc/resolv.conf": "",
        "etc/mx/services.json": json.dumps(services),
    }
    if not node.plain:
        image = node.boot.image if node.boot else NodeImage(lab.base, lab.agent, places.state).digest
        texts["etc/mx/image"] = f"{image}\n"
        texts["etc/mx/assigned"] = f"{node.boot.assigned}\n" if node.boot else ""
    for path, text in texts.items():
        file = upper / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:  # agents tell by the image's file what changed since
            file.write_text(text, encoding="utf-8")


def _boot_plan(places: Places, lab: Lab, node: LabNode, groups: Groups) -> dict[str, object]:
    directory = places.node(node.name)
    return {
        "hostname": node.name,
        "netns": str(network.NAMED / places.node_netns(node.name)),
        "entrances": [str(path) for path in groups.entrances],
        "views": [[str(source), name] for source, name in groups.views],
        "lower": _lower(places, lab, node),
        "upper": str(directory / "upper"),
        "work": str(directory / "work"),
        "root": str(directory / "root"),
        "binds": _binds(places, lab, node),
        "log": str(directory / "upper/var/log/mx/init.log"),
    }


def _lower(places: Places, lab: Lab, node: LabNode) -> str:
    """The head of a lab with machines has the programs that serve them, below all else; a plain machine has Debian only."""
    if node.plain:
        return str(Shelf.of(places.state).root(lab.base))
    if node.boot is not None:
        return ":".join(str(Shelf.of(places.state).root(layer)) for layer in node.boot.layers)
    lower = NodeImage(lab.base, lab.agent, places.state).lower
    return f"{lower}:{Shelf.of(places.state).root(lab.head)}" if node.name == HEAD and lab.head else lower


def _binds(places: Places, lab: Lab, node: LabNode) -> list[tuple[str, str]]:
    """Directories of the host, and their places in the node."""
    binds = [(str(places.shared), "shared")]
    if node.name == HEAD and lab.head:
        places.clip.mkdir(mode=0o700, exist_ok=True)
        binds.append((str(places.clip), plan.CLIP.lstrip("/")))
        # Not read-only: ganesha opens files of one file system by one of its mounts, so all the others would be read-only, too.
        binds.append((str(Shelf.of(places.state).directory), plan.IMAGES.lstrip("/")))
    return binds


def boot(node: LabNode, boot_plan: Path) -> ProcessId:
    done = subprocess.run(
        [sys.executable, "-ISE", str(BOOT), str(boot_plan)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_BOOT_SECONDS,
        check=False,
    )
    process = identify(int(done.stdout)) if done.returncode == 0 else None
    if process is None:
        said = done.stderr.strip().splitlines()[-1:] or ["its first process ended at once"]
        raise LabError(f"node {node.name} does not start: {said[0]}; see {boot_plan.parent}/upper/var/log/mx/init.log")
    return process


def command_line(lab: str, node: LabNode, command: Sequence[str]) -> list[str]:
    """A command of the host that runs ``command`` on the node, as one of its own processes; LabError when it is off."""
    if node.machine is not None:
        raise LabError(f"node {node.name} is a virtual machine, which nobody enters; see mxctl lab console {node.name}")
    if node.init is None or not is_alive(node.init):
        raise LabError(f"node {node.name} of lab {lab} is off; start it with mxctl lab start-node {node.name}")
    entrances = [str(path) for path in Groups(lab, node.name).entrances]
    join = 'while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@"'
    namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd"]
    known = [f"{name}={value}" for name, value in plan.ETCDCTL.items()] if node.name == HEAD else []
    return [
        "env",
        *known,
        "sh",
        "-c",
        join,
        "sh",
        *entrances,
        "--",
        "nsenter",
        f"--target={node.init.pid}",
        *namespaces,
        "--",
        *command,
    ]


def services(node: LabNode) -> dict[str, dict[str, object]]:
    """How the node's services go, by name, as its first process wrote it (see nodeagent/init.py); empty when it is off."""
    if not is_alive(node.init) or node.init is None:
        return {}
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        text = Path(f"/proc/{node.init.pid}/root/run/mx/services.json").read_text(encoding="utf-8")
        state: dict[str, dict[str, object]] = json.loads(text)
        return state
    return {}


def log_tail(places: Places, node: str, service: str, lines: int = 8) -> str:
    """The last lines a service of the node wrote."""
    log = places.node(node) / f"upper/var/log/mx/{service}.log"
    if not log.exists():
        return "(no log)"
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def is_on(node: LabNode) -> bool:
    """Its first process runs."""
    return node.power is Power.ON and is_alive(node.init)
