"""Detectors of credentials: tokens of well-known services, keys, pairs like ``password=…``."""

import base64
import binascii
import re

from sidecar.redaction.detectors.base import Detector, Shape, Span, whole
from sidecar.redaction.detectors.entropy import looks_random
from sidecar.redaction.detectors.tokens import token_shapes

# Signed (three parts) or encrypted (five), RFC 7515 and RFC 7516.
_JWT = r"(?:^|[^0-9A-Za-z])(?P<value>eyJ[0-9A-Za-z_-]{6,}(?:\.[0-9A-Za-z_-]*){1,3}\.[0-9A-Za-z_-]+)"
# `+` is a blank of form-encoded text, whose lines may end all the same.
_PEM_LABEL = r"[ +][A-Z0-9 +]*PRIVATE[ +]KEY(?:[ +]BLOCK)?-----"
_PEM = rf"-----BEGIN{_PEM_LABEL}(?:(?s).*?-----END{_PEM_LABEL}|(?s).*)"
# No bound on the length of a value: what is beyond it would stay. That a value has a digit is part
# of the pattern: a check that refuses long matches over and over takes time by the square.
_BEARER = r"(?i)\bbearer +(?P<value>[a-z._~+/-]{0,256}[0-9][0-9a-z._~+/-]*=*)"
# That there is a colon among the bytes shows in base64, too: at each of its three places in a group
# of four characters, two of them can be few only.
_BASE64 = "[0-9A-Za-z+/_-]"
_COLON = rf"(?:O[g-v]|{_BASE64}[DTjz][o-r]|{_BASE64}{{2}}[AEIMQUYcgkosw048]6)"
_BASIC = rf"(?i:\bbasic) +(?P<value>(?:{_BASE64}{{4}})*{_COLON}{_BASE64}*=*)"

# Between a name and its value, as text, JSON, Python and HTTP libraries print them.
_EQUALS = r"[\"']?\s*(?:=>|:=|==?|:|,)\s*[\[(]?\s*"

_COOKIE = (
    r"(?i)\b(?:set-)?cookies?[\"']?\s*[:=,]\s*b?[\"']?"
    r"(?P<value>[^\s=;,\"']+=[^\r\n'\"]*(?:\"[^\r\n\"]*\"[^\r\n'\"]*)*)"
)
_AUTHORIZATION = r"(?i)authorization[\"']?\s*[:=,]\s*b?[\"']?"
_AUTHORIZATION_SCHEME = (
    _AUTHORIZATION
    + r"(?:bearer|basic|digest|negotiate|ntlm|hawk|token|apikey|key)\s+(?P<value>[^\s\"',;]{4,})"
)
# Without a scheme it may be prose, so only what has a digit.
_AUTHORIZATION_BARE = _AUTHORIZATION + r"(?P<value>[^\s\"',;0-9]{0,64}[0-9][^\s\"',;]{7,})"
_PASSWORD_NAME = (
    r"(?:(?:pass(?:word|wd|phrase|code)|pwd|secret)[0-9a-z_-]{0,24}"
    # Not `passed=45`.
    r"|(?:^|[^a-z])pass(?:[0-9_-][0-9a-z_-]{0,24})?)"
)
# Apart from the others, since it is too short for RE2's filter.
_PW_NAME = r"(?:^|[^a-z])pw(?:[0-9_-][0-9a-z_-]{0,24})?"
# The last word of a name may say that it speaks about a password and holds none. Words that could
# as well name one (`new`, `value`, `id`, `hash`, `field`, `updated`) are not among them.
_ABOUT = (
    *("policy", "policies", "rule", "rules", "validator", "validators", "strength", "complexity"),
    *("length", "len", "size", "age", "ttl", "expiry", "expires", "expired", "expiration"),
    *("days", "seconds", "timeout", "at", "count", "total", "limit", "attempts", "retries"),
    *("rate", "ratio", "rotation", "required", "enabled", "disabled", "allowed", "supported"),
    *("name", "names", "type", "kind", "format", "scheme", "algorithm", "encoder", "hasher"),
    *("file", "path", "dir", "ref", "url", "uri", "arn", "namespace", "version", "mount"),
    *("store", "provider", "manager", "backend", "engine", "authentication", "placeholder"),
)
_ABOUT_WORD = (
    rf"(?:[_-](?:{'|'.join(_ABOUT)})|(?-i:{'|'.join(word.capitalize() for word in _ABOUT)}))"
)


def _password_pairs(name: str) -> tuple[str, ...]:
    """Return patterns for a name of passwords, and what it is equal to."""
    # Matches without a value, so that the name is passed over.
    start = rf"(?i){name}{_ABOUT_WORD}(?:[\"']?\s*[=:]|[\"'],)|{name}"
    return (
        *(rf"{start}{_EQUALS}b?{quote}(?P<value>(?:[^{quote}\\]|\\.)+){quote}" for quote in "\"'"),
        rf"{start}[\"']?\s*(?:=>|:=|==?)\s*[\"'\[(<{{]*"
        r"(?P<value>[^\s\"'&,;<>{}()\[\]\\][^\s\"'&,;<>{}()\[\]]*)",
        # After a colon stands prose as often, so only what no plain word is.
        rf"{start}[\"']?:\s*"
        r"(?P<value>[^\s\"'&,;<>{}()\[\]\\]*(?-i:[0-9A-Z!@#$%^*?])[^\s\"'&,;<>{}()\[\]]*)",
    )


# On a command line a blank stands between; in prose, too, so again only what no plain word is.
_PASSWORD_OPTION = (
    r"(?i)(?:^|\s)--[0-9a-z-]{0,24}(?:password|passwd|passphrase|secret)\s+[\"']?"
    r"(?P<value>[^\s\"'<>\[{-][^\s\"']*(?-i:[0-9A-Z!@#$%^*?])[^\s\"']*)"
)
_PASSWORD_ELEMENT = (
    r"(?i)<(?:[0-9a-z_-]{1,24}:)?[0-9a-z_-]{0,24}(?:password|passwd|passphrase|secret)>"
    r"(?P<value>[^<>\s][^<>]*)</"
)
# `the password is …`; what a sentence goes on with has no digit, or is nothing but one.
_PASSWORD_SENTENCE = (
    r"(?i)\b(?:password|passwd|passphrase|passcode|pwd)\s+(?:(?:is|was)\s+[\"']?|[\"'])"
    r"(?P<value>[^\s\"'<>,;]+[0-9][^\s\"'<>,;]*|[0-9][^\s\"'<>,;]+)"
)
# Programs that take it behind a letter, `curl -u user:…`; mysql wants it right behind.
_PASSWORD_PROGRAM = (
    r"\b(?:curl\b.*? (?:-u|--user|--proxy-user)[ =]?[\"']?[^\s:\"']+:|sshpass -p ?[\"']?"
    r"|redis-cli\b.*? -a [\"']?|(?:docker|podman|helm|oras|skopeo)\b.* login\b.*? -p [\"']?"
    r"|(?:mysql|mysqldump|mysqladmin|mariadb)\b.*? -p[\"']?)"
    r"(?P<value>[^\s\"'-][^\s\"']*)"
)
_PASSWORD_PAIRS = (
    *_password_pairs(_PASSWORD_NAME),
    *_password_pairs(_PW_NAME),
    _PASSWORD_OPTION,
    _PASSWORD_ELEMENT,
    _PASSWORD_PROGRAM,
)
_TOKEN_NAME = (
    r"(?i)(?:token|(?:api|access|private|secret|signing|encryption|account|shared|license|master)"
    r"[ _-]?key|auth|credentials?|session(?:[_-]?id)?|jwt|csrf|xsrf|otp[_-]?seed)"
)
_TOKEN_PAIR = (
    _TOKEN_NAME + r"(?:[\"']?\s*=\s*|[\"']\s*[:,]\s*|\s*:\s+)b?[\[(]?[\"']?"
    r"(?P<value>[a-z_.+/~=-]{0,256}[0-9][0-9a-z_.+/~=-]*)"
)
_TOKEN_OPTION = (
    r"(?i)(?:^|\s)--(?:[0-9a-z-]{1,24}-)?(?:token|(?:api|access|secret|auth)-?key)\s+[\"']?"
    r"(?P<value>[a-z_.+/~=-]{0,256}[0-9][0-9a-z_.+/~=-]*)"
)
_SHORTEST = 8

_RANDOM_CHARACTER, _NO_DIGIT = "[0-9A-Za-z+/_-]", "[A-Za-z+/_-]"
_SHORTEST_SECRET = 20
# Of that length and with a digit, wherever it stands: said so that RE2 alone refuses names.
_LONG_WITH_DIGIT = "|".join(
    f"{_NO_DIGIT}{{{place}}}[0-9]{_RANDOM_CHARACTER}{{{_SHORTEST_SECRET - 1 - place},}}"
    for place in range(_SHORTEST_SECRET)
)
# The character before is part of the match, since a group would cost twice the time.
_RANDOM = (
    r"(?:^|[^0-9A-Za-z+/_.-])"
    rf"(?:{_LONG_WITH_DIGIT}|{_NO_DIGIT}{{{_SHORTEST_SECRET},}}[0-9]{_RANDOM_CHARACTER}*)={{0,2}}"
)
_RANDOM_WORDS = (
    *("secret", "secrets", "token", "bearer", "credential", "credentials", "password", "passwd"),
    *("passphrase", "pwd", "api key", "access key", "private key", "signing key"),
    *("encryption key", "master key", "auth key", "shared key"),
)
_VALUE = re.compile(r"[0-9A-Za-z+/_-]+={0,2}$")
_HEX_SECRET = (
    r"(?i)(?:(?:secret|api|access|private|signing|encryption|master|auth)[ _-]?key"
    r"|(?:client|signing|shared|app|webhook)[ _-]?secret|password|passphrase)"
    r"[\"']?\s*(?:=>|:=|==?|:|is)\s*[\"']?(?P<value>[0-9a-f]{20,})(?:$|[^0-9a-z_-])"
)
# Longer is a file or a picture, not a secret.
_LONGEST_SECRET = 1024
_NO_RANDOM = re.compile(
    # A digest, an id, several of them, each with a word before it: `req_…`, `GPU-…`, `sha512-…`.
    r"(?:[A-Za-z]{1,12}[0-9]{0,3}[_-])?[0-9a-fA-F_-]+|(?:sha|SHA)[0-9]+-.*"
    # Ids of answers and calls of model services.
    r"|(?:chatcmpl|cmpl|call|msg|run|resp|req|thread|asst|file|batch|trace|span|toolu|gen)[_-].*"
    # The beginnings of PNG, JPEG, GIF, WebP, PDF and SVG in base64.
    r"|(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|JVBERi0|PHN2Zy).*"
)
# A number, a path, a version. None may hold `=`, so that no further pair hides in it.
_NO_TOKEN = re.compile(r"[0-9]+|/[\w.+~/-]*|v[0-9]+\.[\w.+~/-]*")
_SHORTEST_IN_SENTENCE = 6
_LETTER = re.compile("[A-Za-z]")
_NO_SECRETS = frozenset(
    {"b", "u", "r", "none", "null", "nil", "true", "false", "undefined", "required"}
)
# Bind parameters and variables, paths, what is masked already.
_NO_SECRET = re.compile(r"[:$@%?].{0,32}|\$?\{+[\w .]*\}+|/[\w./-]*|[*.?x]+", re.IGNORECASE)


def _is_password(text: str) -> bool:
    return text.lower() not in _NO_SECRETS and _NO_SECRET.fullmatch(text) is None


def _is_password_in_sentence(text: str) -> bool:
    return len(text) >= _SHORTEST_IN_SENTENCE and _LETTER.search(text) is not None


def _is_long(text: str) -> bool:
    return len(text) >= _SHORTEST


def _is_token(text: str) -> bool:
    """Tell whether a text may be a credential: not a number, a path, a version."""
    return _is_long(text) and _NO_TOKEN.fullmatch(text) is None


def _is_mixed_hex(text: str) -> bool:
    return not text.isdecimal() and not text.isalpha()


def _narrow_random(text: str) -> Span | None:
    found = _VALUE.search(text)
    assert found is not None, "the pattern ends with it"
    value = found[0].rstrip("=")
    if len(value) > _LONGEST_SECRET or _NO_RANDOM.fullmatch(value) or not looks_random(value):
        return None
    return found.span()


def _is_basic_credentials(text: str) -> bool:
    """Tell whether the text is ``user:password`` in base64 (RFC 7617 section 2)."""
    try:
        return b":" in base64.b64decode(
            text + "=" * (-len(text) % 4), altchars=b"-_" if re.search("[-_]", text) else None
        )
    except (binascii.Error, ValueError):
        return False


DETECTORS = (
    Detector(name="service-token", shapes=token_shapes()),
    Detector(name="jwt", shapes=(Shape(pattern=_JWT),)),
    Detector(name="private-key", shapes=(Shape(pattern=_PEM, lines=False),)),
    Detector(name="bearer", shapes=(Shape(pattern=_BEARER, narrow=whole(_is_long)),)),
    Detector(
        name="basic-auth", shapes=(Shape(pattern=_BASIC, narrow=whole(_is_basic_credentials)),)
    ),
    Detector(
        name="authorization",
        shapes=(Shape(pattern=_AUTHORIZATION_SCHEME), Shape(pattern=_AUTHORIZATION_BARE)),
    ),
    Detector(name="cookie", shapes=(Shape(pattern=_COOKIE),)),
    Detector(
        name="password-pair",
        shapes=(
            *(Shape(pattern=p, narrow=whole(_is_password)) for p in _PASSWORD_PAIRS),
            Shape(pattern=_PASSWORD_SENTENCE, narrow=whole(_is_password_in_sentence)),
        ),
    ),
    Detector(
        name="token-pair",
        shapes=tuple(
            Shape(pattern=p, narrow=whole(_is_token)) for p in (_TOKEN_PAIR, _TOKEN_OPTION)
        ),
    ),
    Detector(
        name="high-entropy",
        shapes=(
            Shape(pattern=_RANDOM, narrow=_narrow_random, near=_RANDOM_WORDS),
            Shape(pattern=_HEX_SECRET, narrow=whole(_is_mixed_hex)),
        ),
    ),
)
