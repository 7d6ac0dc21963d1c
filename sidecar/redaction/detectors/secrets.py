"""Detectors of credentials: tokens of well-known services, keys, pairs like ``password=…``."""

import base64
import binascii
import re

from sidecar.redaction.detectors.base import Detector, whole

# Formats as their vendors document them: name → pattern. A prefix makes each unmistakable.
TOKENS = {
    # https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
    "aws": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    # https://github.blog/engineering/behind-githubs-new-authentication-token-formats/
    "github": r"\bgh[pousr]_[0-9A-Za-z]{36,}",
    "github-fine-grained": r"\bgithub_pat_[0-9A-Za-z_]{50,}",
    # https://docs.gitlab.com/security/tokens/#token-prefixes
    "gitlab": r"\bgl(?:pat|dt|rt|ptt|soat|cbt|imt|agent|oas|ft|ffct)-[0-9A-Za-z_.-]{20,}",
    # https://api.slack.com/authentication/token-types
    "slack": r"\bxox[abeoprs](?:\.xox[bp])?-[0-9A-Za-z-]{10,}",
    "slack-app": r"\bxapp-[0-9]-[0-9A-Za-z-]{10,}",
    # https://docs.stripe.com/keys
    "stripe": r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{16,}",
    # https://platform.openai.com/docs/api-reference/authentication, and those like it
    "model-api": r"\bsk-(?:[a-z]+[0-9]*-)*[0-9A-Za-z_-]{20,}",
    # https://huggingface.co/docs/hub/security-tokens
    "hugging-face": r"\bhf_[0-9A-Za-z]{30,}",
    # https://cloud.google.com/docs/authentication/api-keys
    "google-api": r"\bAIza[0-9A-Za-z_-]{35}",
    "google-oauth": r"\bya29\.[0-9A-Za-z_-]{20,}",
    # https://www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys
    "sendgrid": r"\bSG\.[0-9A-Za-z_-]{22}\.[0-9A-Za-z_-]{43}",
    # https://docs.npmjs.com/about-access-tokens
    "npm": r"\bnpm_[0-9A-Za-z]{36}",
    # the help page of PyPI, "API tokens"
    "pypi": r"\bpypi-[0-9A-Za-z_-]{50,}",
    # https://docs.groq.com, https://langfuse.com/docs/api
    "groq": r"\bgsk_[0-9A-Za-z]{40,}",
    "langfuse": r"\bsk-lf-[0-9a-f-]{36}",
}

_JWT = r"\beyJ[0-9A-Za-z_-]{6,}\.[0-9A-Za-z_-]{4,}\.[0-9A-Za-z_-]*"
_PEM = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(?:(?s).*?-----END [A-Z0-9 ]*PRIVATE KEY-----|(?s).*)"
_BEARER = r"(?i)\bbearer[ +]+(?P<value>[0-9a-z._~+/-]{8,}=*)"
_BASIC = r"(?i)\bbasic[ +]+(?P<value>[0-9a-z+/_-]{4,}=*)"
_COOKIE = r"(?i)\b(?:set-)?cookie:[ \t]*(?P<value>[^\r\n\"']+)"

_EQUALS = r"(?:[\"']?\s*=\s*|[\"']\s*:\s*|\s*:\s+)[\"']?"
_PASSWORD_PAIR = (
    r"(?i)(?:pass(?:word|wd|phrase|code)|pwd|secret(?:[_-]?(?:access[_-]?)?key)?)"
    + _EQUALS
    + r"(?P<value>[^\s\"'&,;<>{}()\[\]\\]+)"
)
_TOKEN_PAIR = (
    r"(?i)(?:token|api[_-]?key|apikey|access[_-]?key|private[_-]?key|auth|credential|session(?:[_-]?id)?)"
    + _EQUALS
    + r"(?P<value>[0-9a-z_.+/~=-]{8,})"
)
_NO_SECRETS = frozenset({"none", "null", "nil", "true", "false", "undefined", "required", "***"})


def _is_password(text: str) -> bool:
    return text.lower() not in _NO_SECRETS and not set(text) <= {"*", ".", "?"}


def _has_digit(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _is_basic_credentials(text: str) -> bool:
    """Tell whether the text is ``user:password`` in base64 (RFC 7617 section 2)."""
    try:
        return b":" in base64.b64decode(
            text + "=" * (-len(text) % 4), altchars=b"-_" if re.search("[-_]", text) else None
        )
    except (binascii.Error, ValueError):
        return False


DETECTORS = (
    Detector(name="service-token", patterns=tuple(TOKENS.values())),
    Detector(name="jwt", patterns=(_JWT,)),
    Detector(name="private-key", patterns=(_PEM,)),
    Detector(name="bearer", patterns=(_BEARER,), narrow=whole(_has_digit)),
    Detector(name="basic-auth", patterns=(_BASIC,), narrow=whole(_is_basic_credentials)),
    Detector(name="cookie", patterns=(_COOKIE,)),
    Detector(name="password-pair", patterns=(_PASSWORD_PAIR,), narrow=whole(_is_password)),
    Detector(name="token-pair", patterns=(_TOKEN_PAIR,), narrow=whole(_has_digit)),
)
