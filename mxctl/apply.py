"""``mxctl apply``: make the cluster as files say. The whole set is checked before anything is written."""

from collections.abc import Sequence

import click

from crds.codec import CodecErrors
from crds.document import Document
from mxctl.core.failures import Failure, tell
from mxctl.core.files import STDIN, read_documents
from mxctl.core.session import Session, run
from mxctl.core.settings import Settings
from mxctl.core.verb import Verb
from store.apply import apply as apply_one
from store.apply import validate_all
from store.errors import Invalid

EXAMPLES = """
mxctl apply -f examples/cluster.yaml
mxctl apply -f cluster/ -f jobs.yaml
mxctl apply -f cluster.yaml --dry-run=server
mxctl apply -f - <jobs.yaml
mxctl apply -f cluster/ --watch
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
@click.option("--watch", is_flag=True, help="Stay, and apply again whenever a file is edited; until Ctrl-C.")
@click.pass_obj
def apply(settings: Settings, names: tuple[str, ...], dry_run: str, watch: bool) -> None:
    """Create what files declare and the cluster does not have, and change what differs.

    What a file no longer says is taken back; what it never said is left alone. If anything is wrong, nothing is written.
    """
    if watch and (STDIN in names or dry_run != "none"):
        raise Failure('--watch needs files that can be edited: it goes neither with "-f -" nor with --dry-run')
    documents = _read(names, settings)
    if dry_run == "client":
        for document in documents:
            click.echo(f"{document.obj.label} valid (client dry run)")
        return
    if watch:
        run(settings, lambda session: _keep_applying(session, names, settings))
    else:
        run(settings, lambda session: _apply(session, documents, dry_run == "server"))


def _read(names: Sequence[str], settings: Settings) -> list[Document]:
    documents = read_documents(names)
    own_namespace(documents, settings)
    return documents


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


async def _keep_applying(session: Session, names: Sequence[str], settings: Settings) -> None:
    """What is wrong with an edit is said, and the next edit awaited: nothing was written."""
    from mxctl.core.editing import watch_files  # late: most who apply do not watch

    async with watch_files(names) as edits:
        edits.notice()
        async for _ in edits:
            try:
                await _apply(session, _read(names, settings), dry_run=False)
            except (Failure, CodecErrors, Invalid) as error:
                for line in tell(error):
                    click.echo(line, err=True)


async def _apply(session: Session, documents: Sequence[Document], dry_run: bool) -> None:
    misfits = await validate_all(session.store, documents)
    if misfits:
        raise Failure(*map(str, misfits))
    for document in documents:
        applied = await apply_one(session.store, document, dry_run=dry_run)
        click.echo(f"{applied.obj.label} {applied.verb}" + (" (server dry run)" if dry_run else ""))
