"""What is done with a value that was found: one function from text to text for each action."""

import hashlib
import hmac
from collections.abc import Callable

from sidecar.redaction.rules import Rule
from sidecar.redaction.sanitize import SANITIZERS

Change = Callable[[str], str]


class DropRecordError(Exception):
    """A rule says that the whole record goes."""

    def __init__(self, rule_id: str) -> None:
        super().__init__("the whole record is dropped")
        self.rule_id = rule_id


class MissingHashKeyError(Exception):
    """A rule hashes, and no key is set."""


def compile_action(rule: Rule, hash_key: bytes) -> Change | None:
    """Return the function that does what a rule says, or None when the attribute is to go.

    Raises:
        MissingHashKeyError: the rule hashes and ``hash_key`` is empty.
    """
    action = rule.action
    if action.replace is not None:
        written = action.replace.with_
        return _constant(rule.placeholder if written is None else written)
    if action.mask is not None:
        mask = action.mask
        return lambda text: _mask(text, mask.keep_first, mask.keep_last, mask.char)
    if action.hash is not None:
        if not hash_key:
            raise MissingHashKeyError
        length, prefix = action.hash.length, hash_prefix(rule)
        return lambda text: _hash(text, hash_key, prefix, length)
    if action.truncate is not None:
        kept = action.truncate.length
        return lambda text: text[:kept]
    if action.sanitize is not None:
        return SANITIZERS[action.sanitize]
    return _drop_record(rule.id) if action.drop_record is not None else None


def hash_prefix(rule: Rule) -> str:
    """Return what stands before the digest of a rule that hashes."""
    return f"[{rule.id.upper().replace('-', '_')}:"


def _constant(text: str) -> Change:
    return lambda _: text


def _mask(text: str, first: int, last: int, char: str) -> str:
    hidden = len(text) - first - last
    if hidden <= 0:
        # Too short to keep anything of: what is left over would be the value itself.
        return char * len(text)
    return text[:first] + char * hidden + text[len(text) - last :]


def _hash(text: str, key: bytes, prefix: str, length: int) -> str:
    digest = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:length]
    return f"{prefix}{digest}]"


def _drop_record(rule_id: str) -> Change:
    def change(_: str) -> str:
        raise DropRecordError(rule_id)

    return change
