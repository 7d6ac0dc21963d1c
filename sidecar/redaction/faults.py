"""What is wrong with a rules folder, in an operator's words."""

import difflib
import functools
import re

from msgspec import inspect


class RulesError(Exception):
    """A rules folder cannot be used; the message is one line: ``file:line: reason``."""

    def __init__(self, message: str) -> None:
        # What people write into files, and what parsers say of it, may hold line breaks.
        super().__init__(" ".join(message.split()))


_KINDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number with a fraction",
    "bool": "true or false",
    "null": "nothing",
    "array": "a list",
    "object": "a mapping",
    "date": "a date",
    "datetime": "a time",
}
_TEXT_WITHOUT_QUOTES = {"int", "float", "bool", "date", "datetime"}


def explained(message: str, kind: type) -> tuple[tuple[str | int, ...], str]:
    """Return the path of the field that msgspec means, and what is wrong in an operator's words."""
    said = re.fullmatch(r"(?s)(.*?)(?: - at `(key` in `)?\$([\w.\[\]]*)`)?", message)
    assert said is not None
    reason, in_key, steps = said[1], said[2], _steps(said[3] or "")
    names = [step for step in steps if isinstance(step, str) and step != "..."]
    label = f"`{'.'.join(names)}`: " if names else ""
    if in_key:
        return steps, f"{label}the name of a field is not text; write it in quotes"
    if missing := re.fullmatch(r"Object missing required field `(\w+)`", reason):
        return steps, f"`{'.'.join([*names, missing[1]])}` is missing"
    type_ = _type_at(kind, steps)
    if unknown := re.fullmatch(r"(?s)Object contains unknown field `(.*)`", reason):
        name = unknown[1]
        known = [field.encode_name for field in getattr(type_, "fields", ())]
        near = [f"`{near}`" for near in difflib.get_close_matches(name, known, 1)]
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        return (*steps, name), f"unknown field `{'.'.join([*names, short(name)])}`: {hint}"
    got = re.search(r"(?s)(?:, got `(\w+)`|^Invalid enum value (.*))$", reason)
    if got is None and not reason.startswith("Expected `"):
        return steps, label + reason  # one of ours
    expected, hint = _allowed(type_), ""
    if got is not None:
        kind_got = got[1] or ""
        hint = f", got {short(got[2]) if got[2] else _KINDS.get(kind_got, kind_got)}"
        if expected == "text" and kind_got in _TEXT_WITHOUT_QUOTES:
            hint += "; write it in quotes"
    return steps, f"{label}expected {expected}{hint}"


def _steps(where: str) -> tuple[str | int, ...]:
    """Turn msgspec's ``.rules[3].when[...]`` into ``("rules", 3, "when", "...")``."""
    parts = re.findall(r"\w+|\.\.\.", where)
    return tuple(int(part) if part.isdigit() else part for part in parts)


_type_info = functools.cache(inspect.type_info)


def _type_at(kind: type, steps: tuple[str | int, ...]) -> inspect.Type:
    """Return the type of the field at a path."""
    type_ = _type_info(kind)
    for step in steps:
        type_ = _bare(type_)
        if isinstance(type_, inspect.StructType):
            fields = {field.encode_name: field.type for field in type_.fields}
            type_ = fields.get(str(step), type_)
        elif isinstance(type_, inspect.ListType):
            type_ = type_.item_type
        elif isinstance(type_, inspect.DictType):
            type_ = type_.value_type
    return type_ if isinstance(type_, inspect.Metadata) else _bare(type_)


def _bare(type_: inspect.Type) -> inspect.Type:
    """Return a type without its description, and without that it may be left out."""
    if isinstance(type_, inspect.Metadata):
        type_ = type_.type
    if isinstance(type_, inspect.UnionType):
        type_ = next(one for one in type_.types if not isinstance(one, inspect.NoneType))
    return type_


def _allowed(type_: inspect.Type) -> str:
    """Say what may be written where a type is expected."""
    match type_:
        case inspect.Metadata(extra_json_schema={"description": str(description)}):
            return description
        case inspect.LiteralType(values=values):
            *first, last = map(str, values)
            return f"{', '.join(first)} or {last}" if first else last
        case inspect.StrType():
            return "text"
        case inspect.IntType():
            return "a whole number"
        case inspect.ListType():
            return "a list"
    return "a mapping"


def short(text: object) -> str:
    """Return the beginning of what somebody wrote, which may be a megabyte long."""
    written = str(text)
    return written if len(written) <= 80 else written[:79] + "…"
