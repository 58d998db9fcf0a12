"""Three-way merge of plain data: what was applied last, what is there now, what is wanted. Pure.

in the wish            the wish's value; mappings are merged field by field, lists and plain values replaced whole
applied last, not now  taken away, so that its default comes back; fields that others added below it stay
neither                kept: somebody else set it
"""

from collections.abc import Mapping
from typing import Any

Data = Mapping[str, Any]


def merge(last: Data, live: Data, wish: Data) -> dict[str, Any]:
    """A new mapping; the arguments are not changed."""
    merged = dict(live)
    for name in last.keys() - wish.keys():
        _take_away(merged, name, last[name])
    for name, wanted in wish.items():
        merged[name] = _merge_one(last.get(name), live.get(name), wanted)
    return merged


def _merge_one(last: Any, live: Any, wanted: Any) -> Any:
    if not isinstance(wanted, Mapping):
        return wanted
    return merge(last if isinstance(last, Mapping) else {}, live if isinstance(live, Mapping) else {}, wanted)


def _take_away(merged: dict[str, Any], name: str, last: Any) -> None:
    """What we once applied goes; a mapping goes whole only when nobody else left anything in it."""
    live = merged.get(name)
    rest = merge(last, live, {}) if isinstance(last, Mapping) and isinstance(live, Mapping) else {}
    if rest:
        merged[name] = rest
    else:
        merged.pop(name, None)
