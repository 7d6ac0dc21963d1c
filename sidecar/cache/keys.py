"""Keys of tool calls: the same call, the same key; another call, another key.

A key reads ``tool:<tool>:<sorted readable args>:<digest>``. The digest decides; the readable part
is for people who look at the cache, is cut to a bounded length and may be the same for different
calls.

Calls are the same when tool and arguments are the same JSON values, in whatever order objects
list their members. ``1``, ``1.0``, ``"1"`` and ``true`` are four different values, because a tool
may treat them differently; ``1.0``, ``1.00`` and ``10e-1`` are one number. Strings are compared by
code point, without Unicode normalization.

**The readable part may hold personal data that was given in the arguments, and keys are visible in
Redis.** They are no telemetry: they are neither logged nor exported.
"""

import hashlib
import json
from typing import Any

_MAX_TOOL = 64
_MAX_READABLE = 128
_DIGEST_CHARS = 32  # 128 bits of SHA-256
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def tool_key(tool: str, args: dict[str, Any]) -> str:
    """Return the cache key of a tool call: at most 231 characters, none of them white space.

    Args:
        tool: the tool's name.
        args: its arguments by name: JSON values, as a JSON decoder returns them.

    Raises:
        TypeError: a value that is not JSON.
        ValueError: a number that is not finite.
        RecursionError: arguments that are nested too deeply.
    """
    digest = hashlib.sha256(canonical([tool, args]).encode()).hexdigest()[:_DIGEST_CHARS]
    return f"tool:{_clean(tool, _MAX_TOOL)}:{_readable(args)}:{digest}"


def canonical(value: Any) -> str:
    """Return the one JSON text of a value: members sorted, no white space, ASCII only.

    ASCII also makes lone surrogates, which are valid in JSON (RFC 8259 section 8.2), encodable.
    """
    return _encode(value)


def _readable(args: dict[str, Any]) -> str:
    text = ""
    for name in sorted(args):
        value = args[name]
        shown = value if isinstance(value, str) else canonical(value)
        text += f"{',' if text else ''}{name[:_MAX_READABLE]}={shown[:_MAX_READABLE]}"
        if len(text) >= _MAX_READABLE:
            break
    return _clean(text, _MAX_READABLE)


def _clean(text: str, limit: int) -> str:
    """Return the start of a text with ``_`` for white space, control characters and ``:``."""
    return "".join(
        "_" if c.isspace() or c == ":" or not c.isprintable() else c for c in text[:limit]
    )
