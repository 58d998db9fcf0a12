"""``mxctl power``: switch machines on and off, by way of mx-clip on the head."""

import secrets
from datetime import timedelta

import click

from crds import keys
from crds.node import Node
from crds.power import PowerAction, PowerOutcome, PowerPhase, PowerRequest
from mxctl.core.failures import Failure
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.types import DURATION
from mxctl.core.verb import Verb
from mxctl.core.watching import until
from store.errors import Conflict
from store.informer import Informer
from store.kv import KeyValue, Put, unchanged
from store.objects import parse_or_broken, utcnow
from store.transaction import commit

EXAMPLES = """
mxctl power status n1
mxctl power on n1
# a machine with jobs is only switched off by force: move them away before
mxctl drain n1 --wait
mxctl power off n1
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Switch machines on and off")
@click.argument("action", type=click.Choice([str(action) for action in PowerAction]))
@click.argument("node")
@click.option("--force", is_flag=True, help="Also when jobs live on it, which are killed, and whoever else is switching it.")
@click.option("--from-disk", is_flag=True, help="Do not ask it to boot over the network.")
@click.option("--timeout", type=DURATION, default="90s", show_default=True, help="Nothing is done after that.")
@click.pass_obj
def power(settings: Settings, /, action: str, node: str, force: bool, from_disk: bool, timeout: float) -> None:
    """Switch a machine on or off, reset it, or ask for its status: as its Node's spec.power says.

    It is done by mx-clip on the head, which has the credentials and reaches the machines' controllers.
    """

    async def verb(session: Session) -> None:
        found = await session.store.get(Node, node)
        if found.spec.power is None:
            raise Failure(f"{found.label} has no power driver: set spec.power (driver, address, credentials)")
        request = PowerRequest(
            id=secrets.token_hex(8),
            action=PowerAction(action),
            from_network=not from_disk,
            only_empty=not force,
            requested_at=utcnow(),
            expires_at=utcnow() + timedelta(seconds=timeout),
        )
        await _ask(session, node, request, force)
        outcome = await _outcome(session, node, request, timeout)
        click.echo(f"{found.label} is {outcome.state}" if action == "status" else f"{found.label} {action}: {outcome.state}")

    run(settings, verb)


async def _ask(session: Session, node: str, request: PowerRequest, force: bool) -> None:
    """Writes the request, in the place of one that is over. Failure when there is one that is not."""
    key, outcome_key = keys.power_request(node), keys.power_outcome(node)
    there, known = await session.kv.get(key), await session.kv.get(outcome_key)
    pending = _pending(there, known)
    if pending is not None and not force:
        raise Failure(
            f"node/{node} is being switched: {pending.requested_by} asked for {pending.action}; wait, or take over with --force"
        )
    try:
        await commit(session.kv, (), [unchanged(key, there.mod_revision if there else 0)], [Put(key, request.to_json())])
    except Conflict as error:
        raise Failure(f"node/{node}: somebody else asked for something at this moment: look, and try again") from error


def _pending(there: KeyValue | None, known: KeyValue | None) -> PowerRequest | None:
    """The request that is there, when it is neither over nor too late."""
    request = parse_or_broken(PowerRequest, there) if there else None
    outcome = parse_or_broken(PowerOutcome, known) if known else None
    if not isinstance(request, PowerRequest):
        return None
    late = request.expires_at is not None and request.expires_at < utcnow()
    if isinstance(outcome, PowerOutcome) and outcome.id == request.id:
        return request if outcome.phase == PowerPhase.ACTING else None
    return None if late else request


async def _outcome(session: Session, node: str, request: PowerRequest, timeout: float) -> PowerOutcome:
    def over(informer: Informer) -> PowerOutcome | None:
        kv = informer.items.get(keys.power_outcome(node))
        found = parse_or_broken(PowerOutcome, kv) if kv else None
        mine = isinstance(found, PowerOutcome) and found.id == request.id and found.phase != PowerPhase.ACTING
        return found if mine and isinstance(found, PowerOutcome) else None

    try:
        found = await until(session, keys.power_outcome(node), over, timeout)
    except TimeoutError as error:
        raise Failure(f"node/{node}: nobody has switched it within {timeout:g} s: does mx-clip run on the head?") from error
    if found.phase != PowerPhase.DONE:
        raise Failure(f"node/{node}: {request.action}: {found.phase}: {found.message}")
    return found
