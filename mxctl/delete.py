"""``mxctl delete``: delete objects, and wait until they are gone."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from crds import keys
from crds.meta import Resource, find_condition
from crds.node import LEAVING
from mxctl.apply import own_namespace
from mxctl.core.failures import FAILED, Failure, tell
from mxctl.core.files import read_documents
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import Target, complete_kinds, parse_selector, parse_targets
from mxctl.core.types import DURATION
from mxctl.core.verb import Verb
from mxctl.core.watching import until
from store.errors import NotFound
from store.informer import Informer
from store.objects import Broken, Identity, decode_or_broken, place

EXAMPLES = """
mxctl delete job w
mxctl delete job/w migration/w-1f2e3d4c
mxctl delete -f examples/jobs.yaml
mxctl delete jobs --all --wait=false
"""


@dataclass(frozen=True, slots=True)
class Victim:
    """One object to delete."""

    kind: type[Resource]
    identity: Identity

    @property
    def key(self) -> str:
        return keys.object_key(self.kind, self.identity.name, self.identity.namespace)

    @property
    def words(self) -> str:
        """``job/w``."""
        return self.identity.label


@click.command(cls=Verb, examples=EXAMPLES, short_help="Delete objects")
@click.argument("words", nargs=-1, shell_complete=complete_kinds, metavar="KIND NAME... | KIND/NAME... | KIND --all")
@click.option("-f", "--filename", "names", multiple=True, help='What this file, directory or "-" declares. Repeatable.')
@click.option("--all", "everything", is_flag=True, help="All objects of the kind in the namespace.")
@click.option("-l", "--selector", help="All objects of the kind with these labels.")
@click.option("--wait", type=bool, default=True, show_default=True, help="Wait until they are gone: a job is stopped first.")
@click.option("--timeout", type=DURATION, default="1m", show_default=True, help="Wait no longer than this; deleting goes on.")
@click.option("--ignore-not-found", is_flag=True, help="What is not there is no error.")
@click.pass_obj
def delete(
    settings: Settings, /, words: tuple[str, ...], names: tuple[str, ...], everything: bool, selector: str | None,
    wait: bool, timeout: float, ignore_not_found: bool,
) -> int:  # fmt: skip
    """Delete objects. A job is stopped politely, then killed after its terminationGrace, then deleted."""
    if bool(words) == bool(names):
        raise Failure("name objects, or files with -f")
    documents = read_documents(names) if names else []
    own_namespace(documents, settings)
    targets = parse_targets(words) if words else []
    if targets and targets[0].name is None and not everything and selector is None:
        raise Failure(f"name the {targets[0].kind.PLURAL} to delete, or add --all or -l")
    declared = [Victim(type(d.obj), place(type(d.obj), d.obj.name, d.obj.metadata.namespace)) for d in reversed(documents)]

    async def verb(session: Session) -> int:
        victims = declared + [victim for target in targets for victim in await _find(session, target, selector)]
        return await _delete(session, victims, timeout if wait else None, ignore_not_found)

    return run(settings, verb)


async def _find(session: Session, target: Target, selector: str | None) -> list[Victim]:
    if target.name is not None:
        return [Victim(target.kind, place(target.kind, target.name, session.namespace))]
    listing = await session.store.list(target.kind, session.namespace)
    chosen = parse_selector(selector or "")
    found = [place(target.kind, obj.name, session.namespace) for obj in listing.items if chosen(obj.metadata.labels)]
    found += [place(target.kind, one.name, session.namespace) for one in listing.broken if selector is None]
    return [Victim(target.kind, identity) for identity in found]


async def _delete(session: Session, victims: Sequence[Victim], timeout: float | None, ignore_not_found: bool) -> int:
    """Asks for all deletions first, then waits for all together. ``timeout`` None: does not wait."""
    pending: dict[str, tuple[Victim, int]] = {}
    code = 0
    for victim in victims:
        stored = await session.kv.get(victim.key)
        try:
            gone = await session.store.delete(victim.kind, victim.identity.name, victim.identity.namespace)
        except NotFound as error:
            code = code if ignore_not_found else _complain(error)
            continue
        if gone or stored is None:
            click.echo(f"{victim.words} deleted")
        elif timeout is None:
            click.echo(f"{victim.words} is being deleted")
        else:
            pending[victim.key] = victim, stored.create_revision
    if pending and timeout is not None:
        await warn_if_unled(session)
        await _wait(session, pending, timeout)
    return code


async def _wait(session: Session, pending: dict[str, tuple[Victim, int]], timeout: float) -> None:
    why: dict[str, str] = {}

    def all_gone(informer: Informer) -> bool | None:
        for key, (victim, created) in list(pending.items()):
            now = informer.items.get(key)
            if now is None or now.create_revision != created:
                click.echo(f"{victim.words} deleted")
                del pending[key]
            else:
                why[key] = _hindrance(decode_or_broken(victim.kind, now))
        return None if pending else True

    prefix = next(iter(pending)) if len(pending) == 1 else keys.OBJECTS
    try:
        await until(session, prefix, all_gone, timeout)
    except TimeoutError as error:
        late = [
            f"{victim.words} is still being deleted after {timeout:g} s{why.get(key, '')}" for key, (victim, _) in pending.items()
        ]
        raise Failure(*late) from error


def _hindrance(obj: Resource | Broken) -> str:
    """Who still has to clean up, and what the object's own status says."""
    if isinstance(obj, Broken):
        return f": {obj.error}"
    status = getattr(obj, "status", None)
    leaving = find_condition(getattr(status, "conditions", []), LEAVING)
    message = leaving.message if leaving else getattr(status, "message", "")
    return f": it waits for {', '.join(obj.metadata.finalizers)}" + (f" ({message})" if message else "")


def _complain(error: NotFound) -> int:
    for line in tell(error):
        click.echo(line, err=True)
    return FAILED
