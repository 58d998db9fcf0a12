"""The state tables as diagrams: ``python -m crds.diagram > docs/states.md``. A test sees to it that the file is as the tables are.

Everything is taken from crds/states.py: a table is any mapping there from states to sets of states of the same enumeration, and a
state's words are the string below it in the source, if there is one.
"""

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum

from crds import states

HEAD = """# States

Made from the tables in `crds/states.py` by `python -m crds.diagram > docs/states.md`; do not edit. An arrow says which state may
follow; staying where one is always is allowed. What the steps of a move mean for a job is told in architecture.md.
"""


def document() -> str:
    """The whole file."""
    return "\n".join([HEAD, *(section(name, table) for name, table in tables())])


def tables() -> Iterator[tuple[str, Mapping[StrEnum, frozenset[StrEnum]]]]:
    """Name and table, in the order of the module."""
    for name, value in vars(states).items():
        if isinstance(value, Mapping) and value and all(isinstance(state, StrEnum) for state in value):
            yield name, value


def section(name: str, table: Mapping[StrEnum, frozenset[StrEnum]]) -> str:
    """Heading, diagram, and what is said of the states."""
    kind = type(next(iter(table)))
    followed = {state for following in table.values() for state in following}
    lines = ["```mermaid", "stateDiagram-v2"]
    for state in table:
        if state not in followed or state == next(iter(table)):
            lines.append(f"    [*] --> {state}")
        lines.extend(f"    {state} --> {after}" for after in table if after in table[state])
        if not table[state]:
            lines.append(f"    {state} --> [*]")
    told = [f"- {state}: {words}" for state, words in meanings(kind).items() if words]
    first, *_ = (kind.__doc__ or "").splitlines()
    return "\n".join(
        [f"## {name.replace('_', ' ').capitalize()}", "", first, "", *lines, "```", "", *told, *([""] if told else [])]
    )


def meanings(kind: type[StrEnum]) -> dict[str, str]:
    """Of each state: the string below it in the source, "" when there is none."""
    body = ast.parse(inspect.getsource(kind).lstrip()).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    last = ""
    for statement in body.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            last = str(kind[statement.targets[0].id])
            found[last] = ""
        elif last and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            found[last] = " ".join(str(statement.value.value).split())
    return found


if __name__ == "__main__":
    sys.stdout.write(document())
