"""``mxctl join`` and ``leave``: make the machine one sits at a node of a cluster, and undo that. They need no context."""

import asyncio
import ipaddress
import socket
import time
from pathlib import Path

import click
import psutil

from mxctl.core.failures import Failure
from mxctl.core.types import DURATION
from mxctl.core.verb import Verb
from nodeagent.credentials import prepare
from nodeagent.errors import AgentError
from nodeagent.joining import NOT_NOW, OK, WAIT, Head, Invitation, ask, facts_of_machine, join, put
from nodeagent.setup import model, steps
from nodeagent.setup.services import TLS, services

JOIN = """
# on the head, or wherever mxctl has an administrator's context:
mxctl token create --node n9
# on the machine, as root; what it prints:
mxctl join 10.0.0.1:8443 --token 2f… --ca 91…
mxctl join 10.0.0.1:8443 --token 2f… --ca 91… --shared 10.0.0.1:/shared
"""
LEAVE = """
mxctl leave
# when the head is gone for good:
mxctl leave --force
"""
POLL = 1.0
ALIVE_SECONDS = 30.0


@click.command("join", cls=Verb, examples=JOIN, short_help="Make this machine a node of a cluster")
@click.argument("head", metavar="HOST:PORT")
@click.option("--token", required=True, help="From mxctl token create.")
@click.option("--ca", required=True, metavar="SHA256", help="Fingerprint of the cluster's authority, from the same place.")
@click.option("--shared", default="", metavar="SERVER:/PATH", help="NFS to mount at /shared, unless something is there already.")
@click.option("--timeout", type=DURATION, default="15m", show_default=True, help="How long to wait for approval.")
def join_(head: str, token: str, ca: str, shared: str, timeout: float) -> None:
    """Make this machine a node: its key is made here and stays, the cluster signs it, /shared is mounted, agent and guard run.

    They are systemd units, or plain processes where there is no systemd. What was cut short is gone on with by the same command.
    """
    try:
        _join(Head(head, ca.lower()), token, shared, timeout)
    except (AgentError, TimeoutError, OSError, ValueError) as error:
        raise Failure(str(error)) from error


def _join(head: Head, token: str, shared: str, timeout: float) -> None:
    steps.check_machine(shared)
    before = model.load()
    if before is not None and before.head != head.address:
        raise Failure(f"this machine is node {before.node} of the cluster at {before.head}: mxctl leave first")
    address, mac = _card_to(head)
    made = before.made if before else steps.missing_directories()
    asyncio.run(prepare(Path(TLS), ""))
    csr = Path(TLS, "node.csr").read_text(encoding="utf-8")
    answer = join(Invitation(head, token, mac), csr, facts_of_machine(), deadline=timeout, told=_say)
    source = shared or str(answer.get("shared", ""))
    joined = model.Joined(
        node=answer["node"],
        head=head.address,
        endpoints=answer["endpoints"],
        address=address,
        supervisor=steps.supervisor(),
        mounted=before.mounted if before else "" if steps.SHARED.is_mount() else source,
        made=made,
    )
    model.save(joined)
    put(Path(TLS), answer)
    _say(f"node/{joined.node} has its certificate")
    if joined.mounted:
        steps.mount_shared(joined.mounted)
    steps.start(joined, services(joined, _paths()))
    _wait_alive()
    click.echo(f"node/{joined.node} joined")


@click.command("leave", cls=Verb, examples=LEAVE, short_help="Take this machine out of its cluster")
@click.option("--force", is_flag=True, help="Ask nobody: what runs here ends. For a cluster that is gone.")
@click.option("--timeout", type=DURATION, default="15m", show_default=True, help="How long to wait until its jobs have moved away.")
def leave(force: bool, timeout: float) -> None:
    """Take this machine out of its cluster: its jobs move away, its certificate becomes worthless, and no trace of MX is left here.

    A job that cannot be moved keeps it; what it waits for is said.
    """
    try:
        joined = model.load()
        if joined is None:
            raise Failure("this machine is no node: nothing to leave")
        if not force:
            _part(joined, timeout)
        steps.stop(joined)
        steps.remove_traces(joined)
    except (AgentError, OSError) as error:
        raise Failure(str(error)) from error
    click.echo(f"node/{joined.node} left")


def _part(joined: model.Joined, timeout: float) -> None:
    """Until the cluster knows nothing of us any more."""
    ca, own = Path(TLS, "ca.crt").read_bytes(), (Path(TLS, "node.crt"), Path(TLS, "node.key"))
    until, last = time.monotonic() + timeout, ""
    while True:
        try:
            status, answer = ask(Head(joined.head, ""), ca, "/leave", {}, own)
        except OSError as error:
            status, answer = NOT_NOW, {"reason": f"head {joined.head} does not answer: {error}"}
        if status == OK:
            return
        reason = str(answer.get("reason", status))
        if status not in (WAIT, NOT_NOW):
            raise Failure(f"head {joined.head}: {reason}; mxctl leave --force asks nobody")
        if reason != last:
            _say(reason)
        last = reason
        if time.monotonic() > until:
            raise Failure(f"not left within {timeout:.0f} s: {reason}; try again, it goes on from here")
        time.sleep(POLL)


def _wait_alive() -> None:
    """The guard's file has the deadline of the agent's first session with etcd."""
    until = time.monotonic() + ALIVE_SECONDS
    while not (steps.RUN / "lease").exists():
        if time.monotonic() > until:
            raise Failure(
                f"the agent has no session with etcd after {ALIVE_SECONDS:.0f} s: see {steps.LOGS}/nodeagent.log or journalctl"
            )
        time.sleep(0.1)


def _card_to(head: Head) -> tuple[str, str]:
    """Address and MAC with which this machine reaches the head."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((head.host, head.port))  # sends nothing
        address = str(probe.getsockname()[0])
    if ipaddress.ip_address(address).is_loopback:
        raise Failure(f"head {head.address} is this machine: the head is no node")
    for cards in psutil.net_if_addrs().values():
        if any(each.address == address for each in cards):
            macs = [each.address.lower() for each in cards if each.family == psutil.AF_LINK]
            if macs:
                return address, macs[0]
    raise Failure(f"address {address}: its network card is not found")


def _paths() -> list[str]:
    """Where Python finds our packages and those we need, ours first."""
    from importlib.util import find_spec

    found = [find_spec(package) for package in ("nodeagent", "grpc", "google.protobuf", "pydantic", "psutil", "yaml")]
    files = [(Path(spec.origin), spec.name.count(".") + 2) for spec in found if spec is not None and spec.origin]
    return list(dict.fromkeys(str(file.parents[depth - 1]) for file, depth in files))


def _say(line: str) -> None:
    click.echo(line, err=True)
