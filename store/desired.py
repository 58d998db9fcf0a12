"""From what a file says to the object that should be stored: the part of ``apply`` that asks nobody. Pure.

The base of the merge is the annotation mx/last-applied: what the file said last time, in canonical form, so that "500m" and "0.5"
are no difference. Only labels, annotations and spec are merged; status and the store's own metadata, as they come along with
``mxctl get -o yaml``, are passed over. A field written as null counts as not written.
"""

import json
import logging
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from crds.document import Document, Problem, find_problems
from crds.meta import LAST_APPLIED, Resource
from crds.registry import BY_KIND
from store.admission import Refused, with_defaults
from store.errors import Invalid
from store.merge import merge

log = logging.getLogger(__name__)

Desired = Document | Resource | Mapping[str, Any]

_MERGED_METADATA = ("labels", "annotations")


def read_wish(desired: Desired) -> Resource:
    """The object; ``model_fields_set`` tells what was written. Raises Invalid."""
    if isinstance(desired, Document):
        return desired.obj
    if isinstance(desired, Resource):
        return desired
    kind = BY_KIND.get(str(desired.get("kind")))
    if kind is None:
        raise Invalid(f'kind: unknown kind "{desired.get("kind")}"; there are: {", ".join(BY_KIND)}')
    return _build(kind, desired, kind.KIND.lower())


def new_object(wish: Resource) -> Resource:
    """What to create where nothing is. Raises Refused."""
    written = _written(wish)
    return with_defaults(_remember(_build(type(wish), written, wish.label), written))


def changed_object(live: Resource, wish: Resource) -> Resource | None:
    """What to write over ``live``; None when it says all of that already. Raises Refused."""
    written = _written(wish)
    merged = merge(_merged_part(_last_applied(live)), _merged_part(live.to_data()), _merged_part(written))
    data = live.to_data()
    data["metadata"] |= merged["metadata"]
    data["spec"] = merged["spec"]
    new = _remember(_build(type(live), data, live.label), written)
    if _merged_part(new.to_data()) == _merged_part(live.to_data()):
        return None
    if live.metadata.deletion_timestamp:
        raise Refused(live.label, Problem((), "is being deleted: wait until it is gone, then apply again"))
    return new


def _written(wish: Resource) -> dict[str, Any]:
    """What the wish really says, in canonical form: no defaults, and nothing that is not its to say."""
    data = wish.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    metadata: dict[str, Any] = {"name": wish.name}
    if wish.NAMESPACED:
        metadata["namespace"] = wish.namespace
    elif wish.metadata.namespace is not None:
        metadata["namespace"] = wish.metadata.namespace  # wrong, and for admission to say so
    metadata |= {name: data["metadata"][name] for name in _MERGED_METADATA if name in data["metadata"]}
    metadata.get("annotations", {}).pop(LAST_APPLIED, None)
    return {"apiVersion": wish.api_version, "kind": wish.KIND, "metadata": metadata, "spec": data.get("spec", {})}


def _merged_part(data: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    metadata = data.get("metadata", {})
    return {"metadata": {name: metadata.get(name, {}) for name in _MERGED_METADATA}, "spec": data.get("spec", {})}


def _build(kind: type[Resource], data: Mapping[str, Any], label: str) -> Resource:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        raise Refused(label, *find_problems(error, kind)) from error


def _remember(obj: Resource, written: Mapping[str, Any]) -> Resource:
    obj.metadata.annotations[LAST_APPLIED] = json.dumps(written, sort_keys=True, separators=(",", ":"))
    return obj


def _last_applied(live: Resource) -> dict[str, Any]:
    text = live.metadata.annotations.get(LAST_APPLIED)
    if text is None:
        return {}
    try:
        last = json.loads(text)
    except ValueError:
        last = None
    if not isinstance(last, dict) or not isinstance(last.get("metadata", {}), dict) or not isinstance(last.get("spec", {}), dict):
        log.warning("%s: annotation %s is broken: nothing applied earlier will be taken away", live.label, LAST_APPLIED)
        return {}
    return last
