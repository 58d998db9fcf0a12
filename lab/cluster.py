"""A lab as a whole: up, down, and its nodes on and off.

Every step is recorded before it is taken, and taking down looks at names and control groups, not at the record alone. So
``down`` leaves nothing behind whatever died when: a half-built lab, a killed ``up``, a ``down`` that was cut short.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from clip import head, image
from clip.builder import Builder, Built
from clip.cache import Shelf, state_dir
from clip.errors import ClipError
from clip.images import layer_owner
from clip.lock import locked
from clip.progress import Report, silent
from crds.image import ImageSpec
from lab import machine, network, node, plan, switch
from lab.cgroups import Groups
from lab.enrol import open_authority
from lab.errors import LabError, LabExists
from lab.model import Boot, Lab, LabNode, Places, Power
from lab.ready import MOST_SECONDS as READY_SECONDS
from lab.ready import context_of
from lab.ready import seconds as ready_seconds
from store import context

_LOCK_SECONDS = READY_SECONDS + 60  # up holds it until the lab is ready
_AT_ONCE = 4
PROGRAMS = ("ip", "nsenter", "mount", "umount", "pivot_root", "setpriv")
PHASES = image.PHASES + 4  # at most, and one a node; see phases()


@dataclass(frozen=True, slots=True)
class NodeState:
    """A node as it is now. ``services`` is what its first process says of each (see nodeagent/init.py)."""

    node: LabNode
    on: bool
    services: dict[str, dict[str, object]]


def up(
    name: str,
    nodes: int,
    cpus: str = plan.DEFAULT_CPUS,
    memory: str = plan.DEFAULT_MEMORY,
    *,
    services: plan.Services = plan.EVERYTHING,
    packages: Sequence[str] = (),
    machines: plan.Machines = plan.NO_MACHINES,
    plain: int = 0,
    report: Report = silent,
) -> Lab:
    """Starts a lab and returns when etcd and all agents answer. ``cpus`` and ``memory``: one quantity, or one a node.
    ``packages``: Debian packages that the nodes have beside the usual ones. ``plain``: machines that may join by themselves.

    LabExists, LabError; whatever goes wrong, nothing is left then.
    """
    check_machine()
    plan.check_name(name)
    planned = (
        [plan.only_head(services)]
        if nodes == 0 and machines.count
        else plan.plan_nodes(nodes, cpus, memory, os.cpu_count() or 1, services)
    )
    planned += plan.plan_machines(machines, nodes)
    planned += plan.plan_plain(plain, nodes + machines.declared)
    places = Places(name)
    built = _image(report, packages)
    head_layer = _head_layer(places, report) if machines.count or plain else ""
    booted = _boot_layers(places, packages, report) if machines.count else None
    if booted is not None:
        cluster = context_of(places).name
        planned[0].services += plan.boot_services(cluster, booted.layers, booted.boot, booted.manifest.digest)
    elif plain:
        planned[0].services.append(plan.MX_JOIN)
    with _changing(places):
        if places.directory.exists():
            raise LabExists(f"lab {name} is there already; take it down with mxctl lab down --name {name}, or choose another name")
        lab = Lab(
            name=name,
            base=built.base,
            agent=built.agent,
            head=head_layer,
            boot=booted.boot if booted else "",
            machine_layers=list(booted.layers) if booted else [],
            config_file=str(context.config_file()),
            nodes=planned,
        )
        places.save(lab)
        try:
            _build(places, lab, report)
        except BaseException:  # also Ctrl-C: whatever was begun is taken back
            _take_down(places)
            raise
    return lab


def phases(nodes: int, packages: Sequence[str] = (), machines: plan.Machines = plan.NO_MACHINES, plain: int = 0) -> int:
    """How many phases ``up`` will report, for a bar. LabError."""
    more = head.PHASES if (machines.count or plain) and not head.is_built(Shelf.of(state_dir()), platform.machine()) else 0
    try:
        built = image.is_built(image.wanted(packages=packages)[0])
        more += Builder().phases(machine_spec(packages)) if machines.count else 0
    except ClipError as error:
        raise LabError(str(error)) from error
    return PHASES + nodes + machines.count + more - (image.PHASES if built else 0)


def _build(places: Places, lab: Lab, report: Report) -> None:
    report("connecting nodes")
    for layer in filter(None, (lab.base, lab.agent, lab.head, lab.boot, *lab.machine_layers)):
        Shelf.of(places.state).hold(layer, f"lab-{lab.name}")
    places.shared.mkdir(mode=0o1777)
    places.shared.chmod(0o1777)
    network.create_bridge(places)
    open_authority(places)  # before the head is on: what is made here lies on its disk
    report("starting nodes")
    since = datetime.now(UTC)
    _switch_on(places, lab, lab.nodes)
    report("waiting for etcd")
    _wait_until_ready(places, lab.nodes, since, report)
    if any(each.machine for each in lab.nodes):
        switch.start(places)
    lab.ready = True
    places.save(lab)
    with context.changing(Path(lab.config_file)) as contexts:
        contexts.put(context_of(places))


def _switch_on(places: Places, lab: Lab, nodes: Sequence[LabNode]) -> None:
    for each in nodes:
        each.power, each.init = Power.ON, None
    places.save(lab)

    def switch_on(each: LabNode) -> None:
        each.init = (machine if each.machine else node).power_on(places, lab, each)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(switch_on, nodes))
    places.save(lab)


def machine_spec(packages: Sequence[str]) -> ImageSpec:
    """What machines boot whose own image was never built."""
    return ImageSpec(packages=list(packages), kernel=plan.MACHINE_KERNEL)


def _head_layer(places: Places, report: Report) -> str:
    """The programs that serve machines."""
    try:
        return head.ensure(Shelf.of(places.state), platform.machine(), report)
    except ClipError as error:
        raise LabError(str(error)) from error


def _boot_layers(places: Places, packages: Sequence[str], report: Report) -> Built:
    """What machines boot."""
    try:
        return Builder(state=places.state).build(machine_spec(packages), report)
    except ClipError as error:
        raise LabError(str(error)) from error


def _wait_until_ready(places: Places, nodes: Sequence[LabNode], since: datetime, report: Report) -> None:
    names = ",".join(each.name for each in nodes)
    waiting = [sys.executable, "-m", "lab.ready", places.lab, names, since.isoformat(), str(places.state)]
    # pdeathsig: when we are killed, it must not stay behind in the lab's namespace
    command = ["setpriv", "--pdeathsig", "TERM", "--", "timeout", f"{ready_seconds(nodes) + 30:.0f}", *waiting]
    with subprocess.Popen(
        command, cwd=image.project_dir(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                report(line.strip())
        except BaseException:  # Ctrl-C: no use to wait on
            process.terminate()
            raise
        said = process.stderr.read().strip()
    if process.returncode:
        raise LabError(said or f"lab {places.lab}: waiting for it ended with {process.returncode}; try again")


def down(name: str) -> bool:
    """Takes a lab down and removes all it has, its disks too. False when there was nothing of it. LabError."""
    check_machine()
    plan.check_name(name)
    places = Places(name)
    with _changing(places):
        return _take_down(places)


def _take_down(places: Places) -> bool:
    groups = Groups(places.lab)
    there = (
        places.directory.exists() or (network.NAMED / places.netns).exists() or any(path.exists() for path in groups.directories)
    )
    groups.kill(node.KILL_SECONDS)
    groups.remove()
    network.remove(places)
    _forget_context(places)
    shelf = Shelf.of(places.state)
    for layer in shelf.directory.glob("*/users"):
        shelf.release(layer.parent.name, f"lab-{places.lab}")
        shelf.release(layer.parent.name, layer_owner(context_of(places).name))  # of revisions built for it
    if places.directory.exists():
        shutil.rmtree(places.directory)
    return there


def _forget_context(places: Places) -> None:
    try:
        config_file = Path(places.load().config_file)
    except LabError:
        config_file = context.config_file()  # half-written record: the context is written last, so it is hardly there
    if config_file.exists():
        with context.changing(config_file) as contexts:
            contexts.remove(context_of(places).name)


def status(name: str) -> list[NodeState]:
    """All nodes, head first. NoSuchLab."""
    return [NodeState(each, node.is_on(each), node.services(each)) for each in Places(name).load().nodes]


def stop_node(name: str, node_name: str, *, hard: bool = False) -> bool:
    """Switches a node off, its disk is kept. False when it was off. ``hard``: like a power cut. NoSuchLab, LabError."""
    check_machine()
    places = Places(name)
    with _changing(places):
        lab = places.load()
        chosen = lab.node(node_name)
        was_on = node.is_on(chosen)
        chosen.power = Power.OFF
        places.save(lab)
        (machine if chosen.machine else node).power_off(places, name, chosen, hard=hard)
    return was_on


def start_node(name: str, node_name: str) -> bool:
    """Switches a node on and waits until its services answer. False when it was on. NoSuchLab, LabError."""
    check_machine()
    places = Places(name)
    with _changing(places):
        lab = places.load()
        chosen = lab.node(node_name)
        if node.is_on(chosen):
            return False
        since = datetime.now(UTC)
        _switch_on(places, lab, [chosen])
        _wait_until_ready(places, [chosen], since, silent)
    return True


def console(name: str, node_name: str) -> Path:
    """Where a machine's console is logged. NoSuchLab, LabError."""
    places = Places(name)
    return machine.console(places, places.load().node(node_name))


def switch_on(name: str, node_name: str, boot: Boot | None) -> bool:
    """Switches a node on with what it is to boot, and does not wait for it. False when it was on. NoSuchLab, LabError."""
    check_machine()
    places = Places(name)
    with _changing(places):
        lab = places.load()
        chosen = lab.node(node_name)
        if node.is_on(chosen):
            return False
        for layer in boot.layers if boot else ():
            Shelf.of(places.state).hold(layer, f"lab-{name}")
        chosen.boot = boot
        _switch_on(places, lab, [chosen])
    return True


def exec_command(name: str, node_name: str, command: Sequence[str]) -> list[str]:
    """The host's command line that runs ``command`` on a node; exec it, or run it. NoSuchLab, LabError."""
    check_machine()
    return node.command_line(name, Places(name).load().node(node_name), command)


def check_machine() -> None:
    """LabError when a lab cannot be on this machine."""
    if os.geteuid() != 0:
        raise LabError("a lab needs root, for namespaces, mounts and control groups; run mxctl with sudo")
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise LabError(f"the program {program} is missing; run scripts/setup as root")


def _image(report: Report, packages: Sequence[str]) -> image.NodeImage:
    try:
        return image.ensure(report, packages=packages)
    except ClipError as error:
        raise LabError(str(error)) from error


@contextmanager
def _changing(places: Places) -> Iterator[None]:
    """One process at a time changes a lab."""
    try:
        with locked(places.lock, timeout=_LOCK_SECONDS, what=f"lab {places.lab}", remove=True):
            yield
    except ClipError as error:
        raise LabError(str(error)) from error
