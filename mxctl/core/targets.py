"""What a person's words mean: ``job w``, ``jobs,nodes``, ``job/w node/n1`` and ``-l app=x,tier!=web``."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import click

from crds.job import Job
from crds.meta import Resource
from crds.registry import KINDS, find_kind
from crds.wording import did_you_mean
from mxctl.core.failures import Failure


@dataclass(frozen=True, slots=True)
class Target:
    """One object, or (``name`` None) all of a kind."""

    kind: type[Resource]
    name: str | None = None


def complete_kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For the shell's completion: kinds, also behind a comma; names would have to be asked of the cluster."""
    before, comma, word = incomplete.rpartition(",")
    return [f"{before}{comma}{kind.PLURAL}" for kind in KINDS if kind.PLURAL.startswith(word)]


def parse_targets(words: Sequence[str]) -> list[Target]:
    """``KIND``, ``KIND,KIND``, ``KIND NAME...`` or ``KIND/NAME...``. Raises Failure."""
    if not words:
        kinds = ", ".join(kind.PLURAL for kind in KINDS)
        raise Failure(f"name a kind: {kinds}")
    if any("/" in word for word in words):
        return [parse_object(word) for word in words]
    kinds_asked = [_kind(word) for word in words[0].split(",")]
    names = words[1:]
    if names and len(kinds_asked) > 1:
        raise Failure("names go with one kind only; for several write KIND/NAME KIND/NAME")
    return [Target(kinds_asked[0], name) for name in names] if names else [Target(kind) for kind in kinds_asked]


def parse_object(word: str) -> Target:
    """``KIND/NAME``. Raises Failure."""
    kind, slash, name = word.partition("/")
    if not slash or not name or "/" in name:
        raise Failure(f'"{word}" names no object; write KIND/NAME, e.g. job/w')
    return Target(_kind(kind), name)


def parse_objects(words: Sequence[str]) -> list[Target]:
    """Like ``parse_targets``, but every object must be named. Raises Failure."""
    targets = parse_targets(words)
    if any(target.name is None for target in targets):
        raise Failure(f'"{" ".join(words)}" names no object; write KIND NAME or KIND/NAME, e.g. job/w')
    return targets


def parse_selector(text: str) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels meet all of ``a=b``, ``a!=b``, ``a in (b,c)``, ``a notin (b,c)``, ``a``, ``!a``. Raises Failure."""
    tests = [_requirement(part.strip(), text) for part in re.split(r",(?![^()]*\))", text) if part.strip()]
    return lambda labels: all(test(labels) for test in tests)


_LABEL = r"[A-Za-z0-9][-A-Za-z0-9_./]*"


def _requirement(part: str, whole: str) -> Callable[[Mapping[str, str]], bool]:
    if found := re.fullmatch(rf"(!?)\s*({_LABEL})", part):
        absent, label = found.groups()
        return lambda labels: (label in labels) != bool(absent)
    if found := re.fullmatch(rf"({_LABEL})\s*(==|=|!=)\s*([^\s=!()]*)", part):
        label, sign, value = found.groups()
        return lambda labels: (labels.get(label) == value) != (sign == "!=")
    if found := re.fullmatch(rf"({_LABEL})\s+(in|notin)\s*\(([^()]*)\)", part):
        label, word, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda labels: (labels.get(label) in values) != (word == "notin")
    raise Failure(f'selector "{whole}": cannot read "{part}"; write e.g. app=x, app!=x, "app in (x,y)", app or !app')


def _kind(word: str) -> type[Resource]:
    try:
        return find_kind(word)
    except KeyError as error:
        raise Failure(f'there is no kind "{word}"{did_you_mean(word, [kind.PLURAL for kind in KINDS])}') from error


def parse_job(word: str) -> str:
    """The name of a job, from ``w`` or ``job/w``. Raises Failure."""
    if "/" not in word:
        return word
    target = parse_object(word)
    if target.kind is not Job or target.name is None:
        raise Failure(f"{word} is no job; write e.g. job/w or w")
    return target.name
