"""What pydantic found wrong, in words for whoever wrote the file: what is there, what is allowed, what was probably meant."""

from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

from crds.machine import Mac
from crds.meta import Name

Path = tuple[str | int, ...]


def explain(error: Mapping[str, Any], model: type[BaseModel] | None = None) -> str:
    """One line for one entry of ``ValidationError.errors()``; ``model`` is what was validated against, if known."""
    words = _WORDS.get(error["type"])
    if words:
        return words(error, model)
    return " ".join(str(error["msg"]).removeprefix("Value error, ").split())


def did_you_mean(word: str, known: list[str]) -> str:
    """``; did you mean "spec"?`` or all there are: the end of a sentence on an unknown word."""
    from difflib import get_close_matches  # who is never asked, like a node's agent, starts faster without it

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower().replace("_", ""), list(by_lower), n=1, cutoff=0.6)
    if near:
        return f'; did you mean "{by_lower[near[0]]}"?'
    return f"; there are: {', '.join(known)}" if known else ""


def what_is(value: Any) -> str:
    """The value as a person sees it: ``the number 3``, ``the text "x"``, ``a list``, ``nothing``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the text "{shorten(value)}"'
    return "a list" if isinstance(value, list) else "a mapping"


def shorten(text: str, length: int = 60) -> str:
    """One line of at most ``length`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def model_at(model: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model of the mapping at the path; None when the path leads to none (free names, plain values)."""
    annotation: Any = model
    for step in path:
        inner = as_model(annotation)
        if inner:
            found = next((f for f in inner.model_fields.values() if f.alias == step), None)
            annotation = found.annotation if found else None
        else:
            arguments = get_args(_bare(annotation))
            annotation = arguments[-1] if arguments else None
    return as_model(annotation)


def as_model(annotation: Any) -> type[BaseModel] | None:
    """The model behind an annotation, if it is one."""
    bare = _bare(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, BaseModel) else None


def field_names(model: type[BaseModel]) -> list[str]:
    """The fields as they are written."""
    return [info.alias or name for name, info in model.model_fields.items()]


def _bare(annotation: Any) -> Any:
    """Without Annotated and ``| None``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, UnionType):
        return _bare(next((part for part in get_args(annotation) if part is not NoneType), None))
    return annotation


def _unknown(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    around = model_at(model, error["loc"][:-1]) if model else None
    return "unknown field" + did_you_mean(str(error["loc"][-1]), field_names(around) if around else [])


def _expected(what: str) -> Callable[[Mapping[str, Any], type[BaseModel] | None], str]:
    return lambda error, _: f"must be {what}, not {what_is(error['input'])}"


def _text(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    quotes = ": put it in quotes" if isinstance(error["input"], int | float) else ""
    return f"must be text, not {what_is(error['input'])}{quotes}"


def _choice(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    return f"must be {str(error['ctx']['expected']).replace(chr(39), chr(34))}, not {what_is(error['input'])}"


def _pattern(error: Mapping[str, Any], model: type[BaseModel] | None) -> str:
    pattern = error["ctx"]["pattern"]
    return f'"{shorten(str(error["input"]))}" {_PATTERNS.get(pattern, f"does not match {pattern}")}'


def _limit(words: str, limit: str) -> Callable[[Mapping[str, Any], type[BaseModel] | None], str]:
    return lambda error, _: f"must be {words} {error['ctx'][limit]:g}, not {error['input']}"


def _pattern_of(annotation: Any) -> str:
    return str(get_args(annotation)[1].pattern)


_PATTERNS = {
    _pattern_of(Name): 'is no name: lower-case letters, digits, "-" and "." only, at most 63, a letter or digit first and last',
    _pattern_of(Mac): "is no MAC address; write e.g. 52:54:00:77:00:01",
}

_WORDS: dict[str, Callable[[Mapping[str, Any], type[BaseModel] | None], str]] = {
    "extra_forbidden": _unknown,
    "missing": lambda error, model: "is missing",
    "string_type": _text,
    "bool_type": _expected("true or false"),
    "int_type": _expected("a whole number"),
    "float_type": _expected("a number"),
    "list_type": _expected("a list"),
    "dict_type": _expected("a mapping"),
    "model_type": _expected("a mapping"),
    "literal_error": _choice,
    "enum": _choice,
    "string_pattern_mismatch": _pattern,
    "too_short": lambda error, model: "must not be empty",
    "string_too_long": lambda error, model: f"must have at most {error['ctx']['max_length']} characters, not {len(error['input'])}",
    "greater_than_equal": _limit("at least", "ge"),
    "greater_than": _limit("more than", "gt"),
    "less_than_equal": _limit("at most", "le"),
    "less_than": _limit("less than", "lt"),
}
