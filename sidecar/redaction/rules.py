"""Rule files: what an operator writes, decoded strictly into values.

A folder of ``*.yaml``, ``*.yml``, ``*.toml`` and ``*.json`` files is read in name order. Whatever
is wrong in it raises `RulesError`, which names file, line and reason; a folder is taken whole or
not at all.
"""

import difflib
import functools
import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import yaml
from msgspec import inspect

RuleSignal = Literal["traces", "metrics", "logs", "events", "http"]
Mode = Literal["enforce", "audit"]
RULE_SIGNALS: tuple[RuleSignal, ...] = ("traces", "metrics", "logs", "events", "http")

T = TypeVar("T")

_MAX_FILE_BYTES = 2**20
# The parser of YAML is C code that calls itself for every level: too deep, and the process dies.
_MAX_DEPTH = 100
# Aliases of aliases can make a page of YAML stand for more values than there is memory.
_MAX_ALIASED = 10_000
_SUFFIXES = {".yaml", ".yml", ".toml", ".json"}
_Id = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[a-z0-9-]+\Z",
        max_length=64,
        description="1 to 64 lower-case letters, digits and hyphens",
    ),
]
_Count = Annotated[
    int, msgspec.Meta(ge=0, le=1_000_000, description="a whole number from 0 to 1000000")
]
_Char = Annotated[str, msgspec.Meta(min_length=1, max_length=1, description="one character")]
_Digits = Annotated[int, msgspec.Meta(ge=8, le=64, description="a whole number from 8 to 64")]
_Keyword = Annotated[
    str, msgspec.Meta(pattern=r"\w", description="text with a letter or a digit in it")
]
_NoRoutes = Annotated[list[None], msgspec.Meta(max_length=0, description="an empty list")]


class RulesError(Exception):
    """A rules folder cannot be used; the message is one line: ``file:line: reason``."""

    def __init__(self, message: str) -> None:
        # What people write into files, and what parsers say of it, may hold line breaks.
        super().__init__(" ".join(message.split()))


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Replace(_Strict, frozen=True, kw_only=True):
    """Write ``with`` in its place; by default ``[REDACTED_<ID>]``."""

    with_: str | None = msgspec.field(default=None, name="with")


class Mask(_Strict, frozen=True, kw_only=True):
    """Keep some characters, write ``char`` for each of the others."""

    keep_first: _Count = 0
    keep_last: _Count = 0
    char: _Char = "*"


class Hash(_Strict, frozen=True, kw_only=True):
    """Write a keyed digest (HMAC-SHA-256) of ``length`` hex digits; equal values stay equal."""

    length: _Digits = 16


class Truncate(_Strict, frozen=True, kw_only=True):
    """Keep the first ``length`` characters."""

    length: _Count = 0


class Drop(_Strict, frozen=True, kw_only=True):
    """Take the attribute or field out."""


class DropRecord(_Strict, frozen=True, kw_only=True):
    """Take the whole span, log record, datapoint or event out."""


class Action(_Strict, frozen=True, kw_only=True):
    """What is done with a value that was found: exactly one of these."""

    replace: Replace | None = None
    mask: Mask | None = None
    hash: Hash | None = None
    truncate: Truncate | None = None
    drop: Drop | None = None
    drop_record: DropRecord | None = None
    sanitize: Literal["url", "sql", "redis"] | None = None

    def __post_init__(self) -> None:
        """Check that one action is named."""
        if sum(getattr(self, name) is not None for name in self.__struct_fields__) != 1:
            raise ValueError(f"name exactly one of {', '.join(self.__struct_fields__)}")


class Except(_Strict, frozen=True, kw_only=True):
    """Where a rule does not apply: at these keys, or to values in which a pattern is found."""

    keys: list[str] = []
    values: list[str] = []


class RuleTest(_Strict, frozen=True, kw_only=True):
    """An example that the rules folder must hold to: ``in`` becomes ``out``, ``keep`` stays."""

    in_: str | None = msgspec.field(default=None, name="in")
    out: str | None = None
    keep: str | None = None
    key: str = ""

    def __post_init__(self) -> None:
        """Check that it is either ``in`` with ``out`` or ``keep``."""
        if (self.in_ is None) != (self.out is None) or (self.in_ is None) == (self.keep is None):
            raise ValueError("write either `in` and `out`, or `keep`")


class Rule(_Strict, frozen=True, kw_only=True):
    """One rule: what to find, where, and what to do with it."""

    id: _Id
    description: str = ""
    find: str | None = None
    pattern: str | None = None
    keys: list[str] | None = None
    keywords: list[_Keyword] = []
    validate: str | None = None
    when: dict[str, str] = {}
    action: Action = msgspec.field(default_factory=lambda: Action(replace=Replace()))
    signals: list[RuleSignal] = msgspec.field(default_factory=lambda: list(RULE_SIGNALS))
    except_: Except = msgspec.field(default_factory=Except, name="except")
    mode: Mode = "enforce"
    tests: list[RuleTest] = []

    def __post_init__(self) -> None:
        """Check that it says in one way what to find."""
        if sum(way is not None for way in (self.find, self.pattern, self.keys)) != 1:
            raise ValueError("name exactly one of find, pattern, keys")
        if self.pattern == "" or self.keys == []:
            raise ValueError("an empty pattern or list of keys finds nothing")
        if self.when and self.keys is None:
            raise ValueError("`when` goes with `keys`")
        if self.keys is not None and (self.keywords or self.validate is not None):
            raise ValueError("`keywords` and `validate` go with `find` or `pattern`")
        if self.keys is None and (self.action.drop or self.action.truncate):
            raise ValueError("this action takes whole values; it goes with `keys`")

    @property
    def placeholder(self) -> str:
        """What `Replace` writes by default."""
        return f"[REDACTED_{self.id.upper().replace('-', '_')}]"


class Keys(_Strict, frozen=True, kw_only=True):
    """For the folder as a whole.

    Attributes:
        allow: globs of the attributes and fields that stay; empty for all.
        ignore: globs of keys at which ids are left alone.
    """

    allow: list[str] = []
    ignore: list[str] = []


class RulesFile(_Strict, frozen=True, kw_only=True):
    """One file of a rules folder."""

    version: Literal[1]
    rules: list[Rule] = []
    keys: Keys = Keys()
    routes: _NoRoutes = []


class Rules(msgspec.Struct, frozen=True):
    """A rules folder, decoded.

    Attributes:
        rules: in file order, then in the order of each file.
        keys: what its files say together.
        places: rule id → ``file:line``, for messages.
    """

    rules: list[Rule]
    keys: Keys
    places: dict[str, str]


def load_rules(folder: Path) -> Rules:
    """Read and check a rules folder.

    Raises:
        RulesError: the folder cannot be read, holds no rule, or a file of it is faulty.
    """
    loaded, faults = read_rules(folder)
    if faults:
        raise faults[0]
    return loaded


def read_rules(folder: Path) -> tuple[Rules, list[RulesError]]:
    """Read a rules folder as far as it can be read; return that, and all that is wrong with it."""
    loaded, faults = Rules([], Keys(allow=[], ignore=[]), {}), list[RulesError]()
    try:
        for path in _files(folder):
            _read(path, loaded, faults)
    except RulesError as error:
        faults.append(error)
    if not loaded.rules and not faults:
        faults.append(
            RulesError(f"{folder}: there is no rule in this folder; nothing would be redacted")
        )
    return loaded, faults


def _read(path: Path, loaded: Rules, faults: list[RulesError]) -> None:
    """Add what one file holds, and what is wrong with it."""
    try:
        value, lines = _parse(path)
    except RulesError as error:
        faults.append(error)
        return
    # One by one, so that a fault of one rule hides none of the next.
    rules = value.get("rules") if isinstance(value, dict) else None
    items = rules if isinstance(rules, list) else []
    for index, item in enumerate(items):
        place = f"{path.name}:{lines.of(('rules', index))}"
        try:
            rule = _convert(path, lines, item, Rule, ("rules", index))
        except RulesError as error:
            faults.append(error)
            continue
        if rule.id in loaded.places:
            taken = loaded.places[rule.id]
            faults.append(RulesError(f"{place}: rule id '{rule.id}' is taken already at {taken}"))
            continue
        loaded.places[rule.id] = place
        loaded.rules.append(rule)
    try:
        rest = {**value, "rules": []} if isinstance(rules, list) else value
        keys = _convert(path, lines, rest, RulesFile, ()).keys
        loaded.keys.allow.extend(keys.allow)
        loaded.keys.ignore.extend(keys.ignore)
    except RulesError as error:
        faults.append(error)


def _files(folder: Path) -> Iterator[Path]:
    try:
        # Kubernetes keeps a ConfigMap's files behind links in `..data`, which begin with a dot.
        paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix in _SUFFIXES and not path.name.startswith(".")
        )
    except OSError as error:
        raise RulesError(f"{folder}: the rules folder cannot be read: {error.strerror}") from None
    yield from paths


class _Lines:
    """Knows at which line each value of a file stands, by its nodes or else by its text."""

    def __init__(self, node: yaml.Node | None, text: str = "", rules: int = 0) -> None:
        self._node = node
        self._text = text
        self._starts = _rule_starts(text, rules) if node is None else []

    def of(self, path: tuple[str | int, ...]) -> int:
        """Return the line of the field at a path, or of the nearest one around it."""
        if self._node is None:
            return self._of_text(path)
        node, line = self._node, self._node.start_mark.line
        for step in path:
            if isinstance(node, yaml.MappingNode):
                pair = next((pair for pair in node.value if pair[0].value == step), None)
                if pair is None:
                    break
                line, node = pair[0].start_mark.line, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                if step >= len(node.value):
                    break
                node = node.value[step]
                line = node.start_mark.line
            else:
                break
        return int(line) + 1

    def _of_text(self, path: tuple[str | int, ...]) -> int:
        start, end = 0, len(self._text)
        if path[:1] == ("rules",) and len(path) > 1 and isinstance(path[1], int):
            if path[1] >= len(self._starts):
                return 1
            start, *following = self._starts[path[1] :]
            end, path = (following or [end])[0], path[2:]
        for name in path:
            if isinstance(name, str):
                field = re.compile(rf"""(?<!\w){re.escape(name)}["']?\s*[\]=:.]""")
                if (found := field.search(self._text, start, end)) is None:
                    break
                start = found.start()
        return _line_at(self._text, start)


def _rule_starts(text: str, rules: int) -> list[int]:
    """Return where each rule begins, by its header in TOML or by its id; empty if unknown."""
    for mark in (r"(?m)^[ \t]*\[\[[ \t]*rules[ \t]*\]\]", r"""(?<!\w)id["']?[ \t]*[:=]"""):
        starts = [found.start() for found in re.finditer(mark, text)]
        if len(starts) == rules:
            return starts
    return []


def _line_at(text: str | bytes, position: int) -> int:
    data = text[:position]
    return (data.count("\n") if isinstance(data, str) else data.count(b"\n")) + 1


def _text(path: Path) -> str:
    """Read a file; what is no regular file is not even opened, since a pipe would never end."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise RulesError(f"{path.name}: is a folder, not a file")
        if not stat.S_ISREG(status.st_mode):
            raise RulesError(f"{path.name}: is not a regular file")
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and path.is_symlink():
            raise RulesError(
                f"{path.name}: is a link to {path.readlink()}, which does not exist"
            ) from None
        raise RulesError(f"{path.name}: cannot be read: {error.strerror}") from None
    if len(data) > _MAX_FILE_BYTES:
        raise RulesError(f"{path.name}: is larger than {_MAX_FILE_BYTES} bytes")
    try:
        # Some editors begin a file with a byte order mark.
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(data, error.start)
        raise RulesError(f"{path.name}:{line}: is not UTF-8 text") from None


def _parse(path: Path) -> tuple[Any, _Lines]:
    text = _text(path)
    try:
        if path.suffix == ".toml":
            value: Any = tomllib.loads(text)
            return value, _Lines(None, text, _number_of_rules(value))
        if path.suffix == ".json":
            return _parse_json(text)
        return _parse_yaml(text)
    except RecursionError:
        raise RulesError(f"{path.name}:1: nests deeper than can be read") from None
    except tomllib.TOMLDecodeError as error:
        reason, _, at = str(error).partition(" (at ")
        number = re.match(r"line (\d+)", at)
        line = int(number[1]) if number else _line_at(text.rstrip(), len(text))
    except msgspec.DecodeError as error:
        reason, _, at = str(error).partition(" (byte ")
        data = text.encode()
        line = _line_at(data, int(at.rstrip(")"))) if at else _line_at(data.rstrip(), len(data))
    except yaml.reader.ReaderError as error:
        reason, line = str(error).partition("\n")[0], _line_at(text.encode(), error.position)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        reason, line = error.problem or "", mark.line + 1 if mark is not None else 1
        if "nesting depth" in reason:
            # From 0.2.6 on, libyaml has a bound of its own, and meets it before any event.
            reason = f"nests deeper than {_MAX_DEPTH} levels"
    except ValueError as error:
        # As of a number with more digits than Python reads.
        reason, line = str(error), 1
    raise RulesError(f"{path.name}:{line}: {reason}")


def _number_of_rules(value: Any) -> int:
    rules = value.get("rules") if isinstance(value, dict) else None
    return len(rules) if isinstance(rules, list) else 0


def _parse_json(text: str) -> tuple[Any, _Lines]:
    value = msgspec.json.decode(text)
    try:
        # Most JSON is YAML, too, whose parser tells lines.
        _refuse_too_much(text)
        node = yaml.compose(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        return value, _Lines(None, text, _number_of_rules(value))
    _refuse_twice(node)
    return value, _Lines(node)


def _parse_yaml(text: str) -> tuple[Any, _Lines]:
    _refuse_too_much(text)
    loader = _Loader(text)
    node = loader.get_single_node()
    _refuse_twice(node)
    if node is None:
        return None, _Lines(None)
    return loader.construct_document(node), _Lines(node)


class _Loader(yaml.CSafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:
            # A date or number by its looks, which is none: the constructors raise whatever the
            # types they make raise, and tell no line.
            reason = f"{_short(node.value)}: {error}; write text in quotes"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from None


def _refuse_too_much(text: str) -> None:
    """Refuse YAML that cannot be read in bounded time and memory, without building any of it."""
    aliased, sizes = 0, dict[str | None, int]()
    within: list[tuple[Any, int]] = [(None, 0)]  # anchor and values so far, level by level
    event: Any  # libyaml's marks are no marks to the type checker
    for event in yaml.parse(text, yaml.CSafeLoader):
        size, problem = 1, ""
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, 0))
            if len(within) > _MAX_DEPTH + 1:
                problem = f"nests deeper than {_MAX_DEPTH} levels"
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = within.pop()
            if anchor is not None:
                sizes[anchor] = size
        elif isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 1)
            aliased += size
            if any(anchor == event.anchor for anchor, _ in within):
                problem = f"the alias *{_short(event.anchor)} stands within what it stands for"
            elif aliased > _MAX_ALIASED:
                problem = f"aliases repeat more than {_MAX_ALIASED} values"
        if problem:
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        anchor, before = within[-1]
        within[-1] = anchor, before + size


def _refuse_twice(node: yaml.Node | None) -> None:
    """Refuse a mapping with a key twice: the last would be taken and the first forgotten."""
    waiting, visited = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in visited:  # by aliases
            continue
        visited.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    problem = f"`{_short(key.value)}` stands twice in one place"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
                waiting.append(value)


def _convert(path: Path, lines: _Lines, value: Any, kind: type[T], at: tuple[str | int, ...]) -> T:
    """Decode what stands at a place of a file; raises `RulesError` that says where it is wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        steps, reason = _explained(str(error), kind)
        line = lines.of((*at, *steps))
        name = value.get("id") if at and isinstance(value, dict) else None
        named = f"rule '{_short(name)}': " if isinstance(name, str) else ""
        raise RulesError(f"{path.name}:{line}: {named}{reason}") from None


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


def _explained(message: str, kind: type) -> tuple[tuple[str | int, ...], str]:
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
        return (*steps, name), f"unknown field `{'.'.join([*names, _short(name)])}`: {hint}"
    got = re.search(r"(?s)(?:, got `(\w+)`|^Invalid enum value (.*))$", reason)
    if got is None and not reason.startswith("Expected `"):
        return steps, label + reason  # one of ours
    expected, hint = _allowed(type_), ""
    if got is not None:
        kind_got = got[1] or ""
        hint = f", got {_short(got[2]) if got[2] else _KINDS.get(kind_got, kind_got)}"
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


def _short(text: object) -> str:
    """Return the beginning of what somebody wrote, which may be a megabyte long."""
    written = str(text)
    return written if len(written) <= 80 else written[:79] + "…"
