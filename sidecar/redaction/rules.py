"""Rule files: what an operator writes, decoded strictly into values.

A folder of ``*.yaml``, ``*.yml``, ``*.toml`` and ``*.json`` files is read in name order. Whatever
is wrong in it raises `RulesError`, which names file, line and reason; a folder is taken whole or
not at all.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from sidecar.proxy.route import ProxyRoute
from sidecar.redaction.faults import RulesError, explained, short
from sidecar.redaction.rule_files import Lines, parse, rule_files

RuleSignal = Literal["traces", "metrics", "logs", "events", "http"]
Mode = Literal["enforce", "audit"]
RULE_SIGNALS: tuple[RuleSignal, ...] = ("traces", "metrics", "logs", "events", "http")

T = TypeVar("T")

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
    routes: list[ProxyRoute] = []


class Rules(msgspec.Struct, frozen=True):
    """A rules folder, decoded.

    Attributes:
        rules: in file order, then in the order of each file.
        keys: what its files say together.
        places: rule id → ``file:line``, for messages.
        routes: of the proxy, in the same order.
    """

    rules: list[Rule]
    keys: Keys
    places: dict[str, str]
    routes: list[ProxyRoute] = []


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
    loaded, faults = Rules([], Keys(allow=[], ignore=[]), {}, []), list[RulesError]()
    try:
        for path in rule_files(folder):
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
        value, lines = parse(path)
    except RulesError as error:
        faults.append(error)
        return
    # One by one, so that a fault of one hides none of the next.
    for place, rule in _each(path, lines, value, "rules", Rule, faults):
        if taken := loaded.places.get(rule.id):
            faults.append(RulesError(f"{place}: rule id '{rule.id}' is taken already at {taken}"))
            continue
        loaded.places[rule.id] = place
        loaded.rules.append(rule)
    for place, route in _each(path, lines, value, "routes", ProxyRoute, faults):
        if any(route.name == other.name for other in loaded.routes):
            faults.append(RulesError(f"{place}: there is a route '{route.name}' already"))
            continue
        loaded.routes.append(route)
    try:
        lists = ("rules", "routes") if isinstance(value, dict) else ()
        rest: dict[str, Any] = {name: [] for name in lists if isinstance(value.get(name), list)}
        keys = _convert(path, lines, {**value, **rest} if rest else value, RulesFile, ()).keys
        loaded.keys.allow.extend(keys.allow)
        loaded.keys.ignore.extend(keys.ignore)
    except RulesError as error:
        faults.append(error)


def _each(
    path: Path, lines: Lines, value: Any, name: str, kind: type[T], faults: list[RulesError]
) -> Iterator[tuple[str, T]]:
    """Yield what a list in a file holds, each with its place; note those that are faulty."""
    items = value.get(name) if isinstance(value, dict) else None
    for index, item in enumerate(items if isinstance(items, list) else []):
        try:
            yield (
                f"{path.name}:{lines.of((name, index))}",
                _convert(path, lines, item, kind, (name, index)),
            )
        except RulesError as error:
            faults.append(error)


def _convert(path: Path, lines: Lines, value: Any, kind: type[T], at: tuple[str | int, ...]) -> T:
    """Decode what stands at a place of a file; raises `RulesError` that says where it is wrong."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        steps, reason = explained(str(error), kind)
        line = lines.of((*at, *steps))
        what, key = ("rule", "id") if kind is Rule else ("route", "name")
        name = value.get(key) if at and isinstance(value, dict) else None
        named = f"{what} '{short(name)}': " if isinstance(name, str) else ""
        raise RulesError(f"{path.name}:{line}: {named}{reason}") from None
