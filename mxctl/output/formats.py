"""The value of ``-o``: wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=TITLE:PATH,…"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from crds.codec import dump_data
from crds.meta import API_VERSION, Resource
from mxctl.core.failures import Failure
from mxctl.output.expression import Expression, Template, as_text

PLAIN = ("", "wide", "yaml", "json", "name")


@dataclass(frozen=True, slots=True)
class Format:
    """``kind`` is one of PLAIN, jsonpath or custom-columns; ``detail`` is what stands behind its "="."""

    kind: str = ""
    detail: str = ""

    @property
    def tabular(self) -> bool:
        """Shown as rows."""
        return self.kind in ("", "wide", "custom-columns")


def parse_format(text: str) -> Format:
    """Checks everything that can be wrong with it. Raises Failure."""
    kind, _, detail = text.partition("=")
    if kind in PLAIN and not detail:
        return Format(kind)
    if kind == "jsonpath" and detail:
        Template(detail)
    elif kind == "custom-columns" and detail:
        custom_columns(detail)
    else:
        raise Failure(f'there is no output format "{text}"; there are: wide, yaml, json, name, jsonpath=…, custom-columns=…')
    return Format(kind, detail)


def custom_columns(text: str) -> list[tuple[str, Expression]]:
    """``NAME:.metadata.name,NODE:.status.node``. Raises Failure."""
    columns = []
    for part in text.split(","):
        title, colon, path = part.partition(":")
        if not (title and colon and path):
            raise Failure(f'custom-columns: "{part}" is not TITLE:PATH, e.g. NODE:.status.node')
        columns.append((title, Expression(path)))
    return columns


def cells(columns: Sequence[tuple[str, Expression]], data: Any) -> list[str]:
    """One row; ``<none>`` where nothing is."""
    return [" ".join(map(as_text, found)) if (found := path.find(data)) else "<none>" for _, path in columns]


def render(objects: Sequence[Resource], form: Format, *, single: bool) -> str:
    """The text of all formats but the tabular ones. ``single``: one object was named, so it is not wrapped into a list."""
    if form.kind == "name":
        return "".join(f"{obj.KIND.lower()}/{obj.name}\n" for obj in objects)
    return render_data([obj.to_data() for obj in objects], form, single=single)


def render_data(documents: Sequence[dict[str, Any]], form: Format, *, single: bool) -> str:
    """The same for plain data: yaml, json and jsonpath."""
    if form.kind == "yaml":
        return "---\n".join(map(dump_data, documents))
    data = documents[0] if single else {"apiVersion": API_VERSION, "kind": "List", "items": list(documents)}
    if form.kind == "json":
        return json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    return Template(form.detail).render(data)


class OutputType(click.ParamType[Format]):
    """Reads -o once, so that a wrong one is told before anything is asked of the cluster."""

    name = "format"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Format:
        return value if isinstance(value, Format) else parse_format(value)
