"""``mxctl apply``: make the cluster as files say. The whole set is checked before anything is written."""

from collections.abc import Sequence

import click

from crds.document import Document
from mxctl.core.failures import Failure
from mxctl.core.files import read_documents
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb
from store.apply import apply as apply_one
from store.apply import validate_all

EXAMPLES = """
mxctl apply -f examples/cluster.yaml
mxctl apply -f cluster/ -f jobs.yaml
mxctl apply -f cluster.yaml --dry-run=server
mxctl apply -f - <jobs.yaml
"""


@click.command(cls=Verb, examples=EXAMPLES, short_help="Make the cluster as files say")
@click.option(
    "-f", "--filename", "names", multiple=True, required=True, help='File, directory (with all below it) or "-". Repeatable.'
)
@click.option(
    "--dry-run",
    type=click.Choice(["none", "client", "server"]),
    default="none",
    help="client: check the files only. server: also check against the cluster and say what would change. Neither writes.",
)
@click.pass_obj
def apply(settings: Settings, names: tuple[str, ...], dry_run: str) -> None:
    """Create what files declare and the cluster does not have, and change what differs.

    What a file no longer says is taken back; what it never said is left alone. If anything is wrong, nothing is written.
    """
    documents = read_documents(names)
    own_namespace(documents, settings)
    if dry_run == "client":
        for document in documents:
            click.echo(f"{document.obj.label} valid (client dry run)")
        return
    run(settings, lambda session: _apply(session, documents, dry_run == "server"))


def own_namespace(documents: Sequence[Document], settings: Settings) -> None:
    """Objects that name no namespace belong to that of the command line. Raises Failure when one names another."""
    wanted = settings.namespace
    for document in documents:
        metadata = document.obj.metadata
        if wanted is None or not document.obj.NAMESPACED:
            continue
        if metadata.namespace not in (None, wanted):
            line = document.line_of(("metadata", "namespace"))
            raise Failure(f'{document.source}:{line}: metadata.namespace: is "{metadata.namespace}", but -n says "{wanted}"')
        metadata.namespace = wanted


async def _apply(session: Session, documents: Sequence[Document], dry_run: bool) -> None:
    misfits = await validate_all(session.store, documents)
    if misfits:
        raise Failure(*map(str, misfits))
    for document in documents:
        applied = await apply_one(session.store, document, dry_run=dry_run)
        click.echo(f"{applied.obj.label} {applied.verb}" + (" (server dry run)" if dry_run else ""))
