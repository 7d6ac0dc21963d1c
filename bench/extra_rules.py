"""Rules as an operator may add them, to see what many rules cost."""

import msgspec

from sidecar.redaction.rules import Rule, Rules

EXTRA = 200

# Patterns with something literal and digits, and a text that each nearly matches.
_PATTERNS = (
    (r"\bcust-{n}-[0-9]{{6}}\b", "cust-{n}-12345"),
    (r"\bORD{n}/[0-9]{{4}}-[0-9]{{4}}\b", "ORD{n}/2026-112"),
    (r"(?i)\bbadge {n}[A-Z]{{2}}[0-9]{{4}}\b", "badge {n}AB123"),
    (r"\bsite{n}:(?P<value>[a-z]{{3}}[0-9]{{5}})\b", "site{n}:abc1234"),
    (r"<member-{n}>[^<]+</member-{n}>", "<member-{n}>x</member>"),
)
# Of so many rules, one is by keys.
_KEYS_EVERY = 8
_KEYS = ("tenant_{n}_member", "*.tenant_{n}_*")


def extra_rules() -> list[Rule]:
    """Return `EXTRA` rules, each different."""
    rules = []
    for number in range(EXTRA):
        pattern, _ = _PATTERNS[number % len(_PATTERNS)]
        finds: dict[str, object] = {"pattern": _fill(pattern, number)}
        if number % _KEYS_EVERY == 0:
            finds = {"keys": [_fill(key, number) for key in _KEYS]}
        rules.append(msgspec.convert({"id": f"extra-{number:03}", **finds}, Rule))
    return rules


def extra_near_matches() -> list[str]:
    """Return for each of the extra patterns a text that it nearly matches."""
    return [_fill(_PATTERNS[number % len(_PATTERNS)][1], number) for number in range(EXTRA)]


def with_extra_rules(rules: Rules) -> Rules:
    """Return a rules folder with the extra rules behind its own."""
    extra = extra_rules()
    places = rules.places | {rule.id: f"extra.yaml:{n}" for n, rule in enumerate(extra, 1)}
    return msgspec.structs.replace(rules, rules=[*rules.rules, *extra], places=places)


def _fill(template: str, number: int) -> str:
    return template.format(n=f"{number:03}")
