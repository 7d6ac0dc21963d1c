"""Detectors of credentials: tokens of well-known services, keys, pairs like ``password=…``."""

import base64
import binascii
import re

from sidecar.redaction.detectors.base import Detector, Shape, whole

# Formats as their vendors document them: name → pattern. A prefix makes each unmistakable.
TOKENS = {
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
    "aws": r"(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    # https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
    "github": r"gh[pousr]_[0-9A-Za-z]{36,}",
    "github-fine-grained": r"github_pat_[0-9A-Za-z_]{50,}",
    # https://docs.gitlab.com/security/tokens/#token-prefixes
    "gitlab": r"gl(?:pat|dt|rt|ptt|soat|cbt|imt|agent|oas|ft|ffct)-[0-9A-Za-z_.-]{20,}",
    # https://api.slack.com/authentication/token-types
    "slack": r"xox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}",
    "slack-app": r"xapp-[0-9]-[0-9A-Za-z-]{10,}",
    # https://docs.stripe.com/keys
    "stripe": r"[rs]k_(?:live|test)_[0-9A-Za-z]{16,}",
    # https://platform.openai.com/docs/api-reference/authentication, and those like it
    "model-api": r"sk-(?:[a-z]+[0-9]*-)*[0-9A-Za-z_-]{20,}",
    # https://huggingface.co/docs/hub/security-tokens
    "hugging-face": r"hf_[0-9A-Za-z]{30,}",
    # https://cloud.google.com/docs/authentication/api-keys
    "google-api": r"AIza[0-9A-Za-z_-]{35}",
    "google-oauth": r"ya29\.[0-9A-Za-z_-]{20,}",
    # https://www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys
    "sendgrid": r"SG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}",
    # https://docs.npmjs.com/about-access-tokens
    "npm": r"npm_[0-9A-Za-z]{36}",
    # the help page of PyPI, "API tokens"
    "pypi": r"pypi-[0-9A-Za-z_-]{50,}",
    # https://docs.groq.com, https://langfuse.com/docs/api
    "groq": r"gsk_[0-9A-Za-z]{40,}",
    "langfuse": r"sk-lf-[0-9a-f-]{36}",
}

_TOKEN_BEFORE = r"(?:^|[^0-9A-Za-z])"

# Signed (three parts) or encrypted (five), RFC 7515 and RFC 7516.
_JWT = r"(?:^|[^0-9A-Za-z])(?P<value>eyJ[0-9A-Za-z_-]{6,}(?:\.[0-9A-Za-z_-]*){1,3}\.[0-9A-Za-z_-]+)"
_PEM = (
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?s).*?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|(?s).*)"
)
# No bound on the length of a value: what is beyond it would stay. That a value has a digit is part
# of the pattern: a check that refuses long matches over and over takes time by the square.
_BEARER = r"(?i)\bbearer +(?P<value>[a-z._~+/-]{0,256}[0-9][0-9a-z._~+/-]*=*)"
_BASIC = r"(?i)\bbasic +(?P<value>[0-9a-z+/_-]{4,}=*)"

# Between a name and its value, as text, JSON, Python and HTTP libraries print them.
_EQUALS = r"[\"']?\s*(?:=>|:=|==?|:|,)\s*[\[(]?\s*"

_COOKIE = (
    r"(?i)\b(?:set-)?cookies?[\"']?\s*[:=,]\s*b?[\"']?"
    r"(?P<value>[^\s=;,\"']+=[^\r\n'\"]*(?:\"[^\r\n\"]*\"[^\r\n'\"]*)*)"
)
_AUTHORIZATION = r"(?i)authorization[\"']?\s*[:=,]\s*b?[\"']?"
_AUTHORIZATION_SCHEME = (
    _AUTHORIZATION + r"(?:bearer|basic|digest|token|apikey|key)\s+(?P<value>[^\s\"',;]{4,})"
)
# Without a scheme it may be prose, so only what has a digit.
_AUTHORIZATION_BARE = _AUTHORIZATION + r"(?P<value>[^\s\"',;0-9]{0,64}[0-9][^\s\"',;]{7,})"
_PASSWORD_NAME = (
    r"(?i)(?:pass(?:word|wd|phrase|code)|pwd|secret|(?:^|[^a-z])(?:pass|pw))[0-9a-z_-]{0,24}"
)
_PASSWORD_QUOTED = tuple(
    rf"{_PASSWORD_NAME}{_EQUALS}b?{quote}(?P<value>(?:[^{quote}\\]|\\.)+){quote}" for quote in "\"'"
)
_PASSWORD_BARE = (
    rf"{_PASSWORD_NAME}[\"']?\s*(?:=>|:=|==?)\s*[\"'\[(<{{]*"
    r"(?P<value>[^\s\"'&,;<>{}()\[\]\\][^\s\"'&,;<>{}()\[\]]*)"
)
# After a colon stands prose as often, so only what no plain word is.
_PASSWORD_COLON = (
    rf"{_PASSWORD_NAME}[\"']?:\s*"
    r"(?P<value>[^\s\"'&,;<>{}()\[\]\\]*(?-i:[0-9A-Z!@#$%^*?])[^\s\"'&,;<>{}()\[\]]*)"
)
_TOKEN_PAIR = (
    r"(?i)(?:token|api[_-]?key|access[_-]?key|private[_-]?key|auth|credential|session(?:[_-]?id)?)"
    r"(?:[\"']?\s*=\s*|[\"']\s*[:,]\s*|\s*:\s+)b?[\[(]?[\"']?"
    r"(?P<value>[a-z_.+/~=-]{0,256}[0-9][0-9a-z_.+/~=-]*)"
)
_DIGIT = re.compile("[0-9]")
_SHORTEST = 8
# A number, a path, a version. None may hold `=`, so that no further pair hides in it.
_NO_TOKEN = re.compile(r"[0-9]+|/[\w.+~/-]*|v[0-9]+\.[\w.+~/-]*")
_NO_SECRETS = frozenset(
    {"b", "u", "r", "none", "null", "nil", "true", "false", "undefined", "required"}
)
# Bind parameters and variables, paths, what is masked already.
_NO_SECRET = re.compile(r"[:$@%?].{0,32}|\$?\{+[\w .]*\}+|/[\w./-]*|[*.?x]+", re.IGNORECASE)


def _is_password(text: str) -> bool:
    return text.lower() not in _NO_SECRETS and _NO_SECRET.fullmatch(text) is None


def _is_service_token(text: str) -> bool:
    # `sk-` is short enough to begin the name of something.
    return not text.startswith("sk-") or _has_digit(text)


def _has_digit(text: str) -> bool:
    return _DIGIT.search(text) is not None


def _is_long(text: str) -> bool:
    return len(text) >= _SHORTEST


def _is_token(text: str) -> bool:
    """Tell whether a text may be a credential: not a number, a path, a version."""
    return _is_long(text) and _NO_TOKEN.fullmatch(text) is None


def _is_basic_credentials(text: str) -> bool:
    """Tell whether the text is ``user:password`` in base64 (RFC 7617 section 2)."""
    try:
        return b":" in base64.b64decode(
            text + "=" * (-len(text) % 4), altchars=b"-_" if re.search("[-_]", text) else None
        )
    except (binascii.Error, ValueError):
        return False


DETECTORS = (
    Detector(
        name="service-token",
        shapes=tuple(
            Shape(pattern=f"{_TOKEN_BEFORE}(?P<value>{pattern})", narrow=whole(_is_service_token))
            for pattern in TOKENS.values()
        ),
    ),
    Detector(name="jwt", shapes=(Shape(pattern=_JWT),)),
    Detector(name="private-key", shapes=(Shape(pattern=_PEM),)),
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
        shapes=tuple(
            Shape(pattern=p, narrow=whole(_is_password))
            for p in (*_PASSWORD_QUOTED, _PASSWORD_BARE, _PASSWORD_COLON)
        ),
    ),
    Detector(name="token-pair", shapes=(Shape(pattern=_TOKEN_PAIR, narrow=whole(_is_token)),)),
)
