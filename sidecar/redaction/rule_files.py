"""Files of rules: found, read within bounds, parsed into plain values, with the line of each."""

import re
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from sidecar.redaction.faults import RulesError, short

_MAX_FILE_BYTES = 2**20
# The parser of YAML is C code that calls itself for every level: too deep, and the process dies.
_MAX_DEPTH = 100
# Aliases of aliases can make a page of YAML stand for more values than there is memory.
_MAX_ALIASED = 10_000
_SUFFIXES = {".yaml", ".yml", ".toml", ".json"}


def rule_files(folder: Path) -> Iterator[Path]:
    """Yield the files of a rules folder in name order; raises `RulesError` if it is unreadable."""
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


class Lines:
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


def parse(path: Path) -> tuple[Any, Lines]:
    """Return what a file holds, as plain values, and where each of them stands.

    Raises:
        RulesError: it cannot be read, or not within bounds of time and memory.
    """
    text = _text(path)
    try:
        if path.suffix == ".toml":
            value: Any = tomllib.loads(text)
            return value, Lines(None, text, _number_of_rules(value))
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


def _parse_json(text: str) -> tuple[Any, Lines]:
    value = msgspec.json.decode(text)
    try:
        # Most JSON is YAML, too, whose parser tells lines.
        _refuse_too_much(text)
        node = yaml.compose(text, yaml.CSafeLoader)
    except yaml.YAMLError:
        return value, Lines(None, text, _number_of_rules(value))
    _refuse_twice(node)
    return value, Lines(node)


def _parse_yaml(text: str) -> tuple[Any, Lines]:
    _refuse_too_much(text)
    loader = _Loader(text)
    node = loader.get_single_node()
    _refuse_twice(node)
    if node is None:
        return None, Lines(None)
    return loader.construct_document(node), Lines(node)


class _Loader(yaml.CSafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except yaml.YAMLError:
            raise
        except Exception as error:
            # A date or number by its looks, which is none: the constructors raise whatever the
            # types they make raise, and tell no line.
            reason = f"{short(node.value)}: {error}; write text in quotes"
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
                problem = f"the alias *{short(event.anchor)} stands within what it stands for"
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
                    problem = f"`{short(key.value)}` stands twice in one place"
                    raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
                waiting.append(value)
