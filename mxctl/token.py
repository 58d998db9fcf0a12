"""``mxctl token``: what a machine that runs Linux already joins with."""

import click

from mxctl.core.failures import Failure
from mxctl.core.heads import ask_as_person, head_of
from mxctl.core.settings import Settings
from mxctl.core.types import DURATION
from mxctl.core.verb import Verb
from store import context as contexts
from store.errors import StoreError

CREATE = """
mxctl token create --node n9
mxctl token create --node n9 --ttl 1h
"""


@click.group(short_help="Invite a machine that runs Linux already")
def token() -> None:
    """Tokens are good for one machine and some minutes. The head keeps their hashes only."""


@token.command(cls=Verb, examples=CREATE)
@click.option("--node", required=True, help="As which node the machine joins.")
@click.option("--ttl", type=DURATION, default="15m", show_default=True, help="How long it is good, up to 24h.")
@click.option("--head", metavar="HOST:PORT", help="Where mx-join answers; without it on etcd's first machine.")
@click.pass_obj
def create(settings: Settings, node: str, ttl: float, head: str | None) -> None:
    """Make a token, and print the command that makes a machine a node with it."""
    try:
        context = settings.found or contexts.current(settings.context)
        where = head or head_of(context)
        answer = ask_as_person(context, where, "/tokens", {"node": node, "seconds": ttl})
    except StoreError as error:
        raise Failure(str(error)) from error
    click.echo(f"mxctl join {where} --token {answer['token']} --ca {answer['ca']}")
