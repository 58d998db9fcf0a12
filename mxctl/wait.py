"""``mxctl wait``: until objects are as they should be. Watched, not polled."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import click

from crds import keys
from crds.meta import CLUSTER_SCOPE, Resource, Truth
from mxctl.core.failures import Failure
from mxctl.core.reading import read
from mxctl.core.session import Session, run, warn_if_unled
from mxctl.core.settings import Settings
from mxctl.core.targets import complete_kinds, parse_selector, parse_targets
from mxctl.core.types import DURATION
from mxctl.core.verb import Verb
from mxctl.core.watching import until
from mxctl.output.expression import Expression, as_text
from store.errors import NotFound
from store.informer import Informer
from store.objects import key_of, prefix_of

EXAMPLES = """
mxctl wait job/w --for=condition=Running --timeout=20s
mxctl wait node/n1 --for=condition=Ready=False
mxctl wait job/w --for=delete
mxctl wait job/w --for=jsonpath='{.status.node}'=n2
mxctl wait nodes --all --for=condition=Ready
"""

Answer = str | None
"""What is wrong still; None when it is as it should be."""


@dataclass(frozen=True, slots=True)
class Goal:
    """``missing`` looks at the object, None for one that is gone; ``words`` name the goal in messages."""

    words: str
    missing: Callable[[Resource | None], Answer]
    deletion: bool = False


@click.command(cls=Verb, examples=EXAMPLES, short_help="Wait until objects are as they should be")
@click.argument("words", nargs=-1, shell_complete=complete_kinds, required=True, metavar="KIND/NAME... | KIND NAME... | KIND --all")
@click.option(
    "--for", "goal", required=True, metavar="GOAL", help="condition=TYPE[=True|False|Unknown], delete, or jsonpath='{PATH}'=VALUE."
)
@click.option("--timeout", type=DURATION, default="30s", show_default=True, help="Give up after this time.")
@click.option("--all", "everything", is_flag=True, help="All objects of the kind.")
@click.option("-l", "--selector", help="All objects of the kind with these labels.")
@click.pass_obj
def wait(settings: Settings, words: tuple[str, ...], goal: str, timeout: float, everything: bool, selector: str | None) -> None:
    """Wait until every object named meets the goal; exit code 1 if one does not in time."""
    targets = parse_targets(words)
    if targets[0].name is None and not everything and selector is None:
        raise Failure("name the objects, or add --all or -l")
    chosen = parse_selector(selector or "")
    aim = parse_goal(goal)

    async def verb(session: Session) -> None:
        found = await read(session, targets, session.namespace)
        for error in found.errors:
            if not (aim.deletion and isinstance(error, NotFound)):
                raise error
        await warn_if_unled(session)
        objects = [obj for obj in found.objects if chosen(obj.metadata.labels)]
        if objects:
            await wait_for(session, objects, aim, timeout)
        elif not aim.deletion:
            raise Failure(f"there is nothing to wait for: no {targets[0].kind.PLURAL} match")

    run(settings, verb)


def parse_goal(text: str) -> Goal:
    """Raises Failure."""
    if text == "delete":
        return Goal("deletion", lambda obj: None if obj is None else "it is still there", deletion=True)
    if found := re.fullmatch(r"condition=(\w+)(?:=(\w+))?", text):
        return _condition(found[1], found[2] or "True", text)
    if found := re.fullmatch(r"jsonpath=(\{.*\}|[^=]+)(?:=(.*))?", text, re.DOTALL):
        return _path(Expression(found[1]), found[2], text)
    raise Failure(f"""--for={text} is no goal; write condition=TYPE, condition=TYPE=False, delete or jsonpath='{{.path}}'=VALUE""")


def _condition(name: str, value: str, text: str) -> Goal:
    truth = next((truth for truth in Truth if truth.lower() == value.lower()), None)
    if truth is None:
        raise Failure(f"--for={text}: a condition is True, False or Unknown")

    def missing(obj: Resource | None) -> Answer:
        conditions = getattr(getattr(obj, "status", None), "conditions", [])
        found = next((condition for condition in conditions if condition.type.lower() == name.lower()), None)  # as kubectl
        if found is None:
            return f"it has no condition {name} yet"
        why = ": ".join(filter(None, (found.reason, found.message)))
        return None if found.status == truth else f"{name} is {found.status}" + (f" ({why})" if why else "")

    return Goal(f"condition {name}={truth}", missing)


def _path(expression: Expression, value: str | None, text: str) -> Goal:
    def missing(obj: Resource | None) -> Answer:
        found = [as_text(one) for one in expression.find(obj.to_data() if obj else {})]
        if (found and value is None) or value in found:
            return None
        return f"it is {' '.join(found)}" if found else "it is not set"

    return Goal(text, missing)


async def wait_for(session: Session, objects: Sequence[Resource], goal: Goal, timeout: float | None) -> None:
    """Tells of each object when it is there. Raises Failure with those that are not in time, or at once for one that went away."""
    pending = {key_of(obj): obj for obj in objects}
    lacks: dict[str, str] = {}

    def all_met(informer: Informer) -> bool | None:
        for key, obj in list(pending.items()):
            now = _now(informer, obj)
            if now is None and not goal.deletion:
                raise Failure(f"{obj.label} was deleted while waiting for {goal.words}")
            lack = goal.missing(now)
            if lack is None:
                click.echo(f"{obj.label} {'deleted' if goal.deletion else 'condition met'}")
                del pending[key]
            else:
                lacks[key] = lack
        return None if pending else True

    try:
        await until(session, _around(objects), all_met, timeout)
    except TimeoutError as error:
        late = f"timed out after {timeout:g} s waiting for {goal.words} of"
        raise Failure(
            *(f"{late} {obj.label}: {lacks.get(key, 'nothing is known of it')}" for key, obj in pending.items())
        ) from error


def _around(objects: Sequence[Resource]) -> str:
    """The prefix to watch: no more than needed, one watch for all."""
    if len(objects) == 1:
        return key_of(objects[0])
    kinds = {type(obj) for obj in objects}
    return prefix_of(kinds.pop()) if len(kinds) == 1 else keys.OBJECTS


def _now(informer: Informer, obj: Resource) -> Resource | None:
    """The very object, None when it is gone or another has its name."""
    try:
        now = informer.get(type(obj), obj.name, None if obj.namespace == CLUSTER_SCOPE else obj.namespace)
    except NotFound:
        return None
    return now if now.metadata.uid == obj.metadata.uid else None
