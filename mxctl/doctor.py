"""``mxctl doctor``: looks at all parts of a cluster, and says what to do."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mxctl.core.failures import FAILED, Failure
from mxctl.core.session import Session, connected
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb

if TYPE_CHECKING:
    from clip.doctor.inspect import HeadPlace
    from clip.doctor.model import Facts, Finding
    from store.context import Context

EXAMPLES = """
mxctl doctor
# only what is to be mended:
mxctl doctor --quiet
mxctl doctor -o json
"""
LAB = "lab-"


@click.command(cls=Verb, examples=EXAMPLES, short_help="Look at all parts of the cluster, and say what to do")
@click.option("-q", "--quiet", is_flag=True, help="Leave out what is well.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="For programs.")
@click.pass_obj
def doctor(settings: Settings, quiet: bool, output: str | None) -> None:
    """Look at etcd, the head's programs, disks and certificates, the nodes' criu, kernels, processors, clocks and mounts.

    One line for each finding: OK, WARN (it works, and should be mended) or FAIL (it does not work), and what to do about it. The
    exit code is 1 when something fails. The head's own programs are looked at on the head, and for a lab where it runs. It takes
    some seconds.
    """
    from clip.doctor.checks import examine  # late: what is beside the checks takes long to import
    from clip.doctor.model import Level

    found = examine(_collect(settings))
    if output:
        click.echo(json.dumps([_data(finding) for finding in found], indent=2))
    else:
        shown = [finding for finding in found if not quiet or finding.level is not Level.OK]
        for line in (line for finding in shown for line in _lines(finding)):
            click.echo(line)
    if any(finding.level is Level.FAIL for finding in found):
        raise click.exceptions.Exit(FAILED)


def _collect(settings: Settings) -> "Facts":
    import asyncio

    async def whole() -> "Facts":
        async with connected(settings) as session:
            return await _look(session)

    return asyncio.run(whole())


async def _look(session: Session) -> "Facts":
    from clip.doctor import cluster, inspect

    place = head_place(session.context)
    files = [*(place.certificates if place else ())]
    if session.context.files is not None:
        files.append(session.context.files[1])
    facts = await cluster.collect(session.kv, session.store.clock)
    head = await inspect.look(place) if place else None
    return replace(facts, head=head, certificates=inspect.certificates(dict.fromkeys(files)))


def head_place(context: "Context") -> "HeadPlace | None":
    """Where the context's head is, as far as it can be looked at from here."""
    if context.netns is not None and context.name.startswith(LAB):
        return _lab_head(context.name.removeprefix(LAB))
    return _this_machine(context) if context.netns is None else None


def _this_machine(context: "Context") -> "HeadPlace | None":
    """When it is the context's head."""
    from clip.doctor.inspect import HeadPlace
    from clip.errors import ClipError
    from clip.setup import config as configs
    from clip.setup.units import AUTHORITY, ETCD_DATA, TLS

    try:
        config = configs.load()
    except ClipError as error:
        raise Failure(str(error)) from error
    if config is None or config.endpoint not in context.endpoints:
        return None
    return HeadPlace(
        where=f"the head, {config.address}",
        server=config.address,
        services=frozenset({"etcd", "reconciler", "clip", "join", "dnsmasq", "nfs"}),
        state=Path(config.state),
        images=Path(config.images),
        shared=Path(config.shared),
        etcd_data=Path(ETCD_DATA),
        http_port=config.http_port,
        join_port=config.join_port,
        certificates=[*sorted(Path(TLS).glob("*.crt")), Path(AUTHORITY, "ca.crt")],
    )


def _lab_head(name: str) -> "HeadPlace | None":
    from clip.doctor.inspect import HeadPlace
    from lab import cluster as labs
    from lab import plan
    from lab.errors import LabError
    from lab.model import HEAD, HEAD_ADDRESS, Places
    from lab.process import is_alive

    try:
        head = Places(name).load().node(HEAD)
    except LabError as error:
        raise Failure(str(error)) from error
    if head.init is None or not is_alive(head.init):
        return None
    root = Path(f"/proc/{head.init.pid}/root")
    tls = root / plan.HEAD_TLS.lstrip("/")
    return HeadPlace(
        where=f"head of lab {name}",
        server=HEAD_ADDRESS,
        services=frozenset(service.name for service in head.services),
        root=root,
        certificates=[*sorted(tls.glob("*.crt")), root / plan.AUTHORITY.lstrip("/") / "ca.crt"],
        command=lambda command: labs.exec_command(name, HEAD, command),
    )


def _lines(finding: "Finding") -> list[str]:
    """Found, and below it what to do."""
    where = finding.check if finding.subject == finding.check else f"{finding.check}, {finding.subject}"
    found = f"{finding.level.value:<4}  {where}: {finding.text}"
    return [found, f"      -> {finding.remedy}"] if finding.remedy else [found]


def _data(finding: "Finding") -> dict[str, Any]:
    return {
        "level": finding.level.value,
        "check": finding.check,
        "subject": finding.subject,
        "found": finding.text,
        "remedy": finding.remedy or None,
    }
