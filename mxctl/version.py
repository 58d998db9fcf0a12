"""``mxctl version``: of the client, of etcd, and of the agents, so that a mixture is seen."""

import json
import platform
from importlib.metadata import version as installed
from typing import Any

import click

from crds import keys
from crds.codec import dump_data
from crds.load import Alive
from mxctl.core.reading import warn_of
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb
from store.objects import Broken, parse_or_broken

EXAMPLES = """
mxctl version
mxctl version --client
mxctl version -o json
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Show versions of client, etcd and agents")
@click.option("--client", is_flag=True, help="Only of this program; asks no cluster.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), help="For programs.")
@click.pass_obj
def version(settings: Settings, client: bool, output: str | None) -> None:
    """Show versions: of this program, of etcd, who leads the reconcilers, and of each node's agent."""
    found: dict[str, Any] = {"client": {"mx": installed("mx"), "python": platform.python_version()}}
    if not client:
        found |= run(settings, _ask)
    if output:
        click.echo(json.dumps(found, indent=2) if output == "json" else dump_data(found), nl=output == "json")
        return
    for line in _lines(found):
        click.echo(line)


async def _ask(session: Session) -> dict[str, Any]:
    from store.etcd import EtcdKV  # late: gRPC must not be imported before the network namespace is entered

    etcd = (await session.kv.status()).version if isinstance(session.kv, EtcdKV) else "none: a store in memory"
    leader = await session.kv.get(keys.LEADER)
    agents = {}
    for kv in (await session.kv.list(keys.NODES)).items:
        _, node, *what = keys.parts(kv.key)
        if what != ["alive"]:
            continue
        alive = parse_or_broken(Alive, kv)
        if isinstance(alive, Broken):
            warn_of([alive])
        else:
            agents[node] = {"mx": alive.agent_version, "criu": alive.criu, "kernel": alive.kernel}
    return {"etcd": etcd, "reconciler": leader.value.decode() if leader else None, "agents": agents}


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [f"Client:      {found['client']['mx']} (Python {found['client']['python']})"]
    if "etcd" in found:
        lines.append(f"etcd:        {found['etcd']}")
        lines.append(f"Reconciler:  {found['reconciler'] or 'none is leading'}")
        lines += [
            f"{f'Agent {node}:':<12} {a['mx']} (criu {a['criu'] or 'does not work'}, Linux {a['kernel']})"
            for node, a in found["agents"].items()
        ]
    return lines
