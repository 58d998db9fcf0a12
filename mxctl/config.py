"""``mxctl config``: which clusters there are, and which one is talked to."""

import click

from mxctl.core.failures import Failure
from mxctl.core.verb import Verb
from mxctl.output.table import table
from store import context as contexts
from store.errors import StoreError


@click.group(short_help="Choose the cluster to talk to")
def config() -> None:
    """Show and choose contexts: the clusters mxctl knows. The file is MXCONFIG, else ~/.config/mx/config."""


@config.command("get-contexts", cls=Verb, examples="mxctl config get-contexts")
def get_contexts() -> None:
    """Show all clusters; * marks the current one."""
    known = _load()
    if not known.contexts:
        click.echo(f"No contexts in {contexts.config_file()}; make one with mxctl lab up", err=True)
        return
    rows = [
        ["*" if context.name == known.current_context else " ", context.name, ",".join(context.endpoints), context.shared or "-"]
        for context in known.contexts
    ]
    click.echo("\n".join(table(["CURRENT", "NAME", "ENDPOINTS", "SHARED"], rows)))


@config.command("current-context", cls=Verb, examples="mxctl config current-context")
def current_context() -> None:
    """Show the cluster that is talked to."""
    name = _load().current_context
    if name is None:
        raise Failure("no current context; choose one with mxctl config use-context NAME, or make one with mxctl lab up")
    click.echo(name)


@config.command("use-context", cls=Verb, examples="mxctl config use-context lab-t")
@click.argument("name")
def use_context(name: str) -> None:
    """Talk to this cluster from now on."""
    try:
        with contexts.changing() as known:
            known.current_context = known.find(name).name
    except StoreError as error:
        raise Failure(str(error)) from error
    click.echo(f'Switched to context "{name}".')


def _load() -> contexts.Contexts:
    try:
        return contexts.load()
    except StoreError as error:
        raise Failure(str(error)) from error
