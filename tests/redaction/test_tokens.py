"""Every token format is found wherever it stands, and what nearly is one is left alone."""

import json
import time
from urllib.parse import quote

import pytest

from sidecar.redaction.detectors.tokens import TOKENS, WEAK_TOKENS
from tests.redaction.test_engine import engine, redact
from tests.redaction.token_samples import (
    TEMPLATES,
    TOKEN_SAMPLES,
    TOKEN_VALUES,
    fill,
    without_literals,
)

ONLY_TOKENS = engine({"find": "service-token"}).redactor("logs")

# One character less, and they are still a `model-api` key.
NARROWER = {"openai", "anthropic", "openrouter"}
# The fixed part of these is no letter, so that the near-miss below says nothing of them.
WITHOUT_LETTERS = {"google-oauth-refresh"}


def test_every_format_has_a_sample() -> None:
    assert TEMPLATES.keys() == TOKENS.keys() | WEAK_TOKENS.keys()


def everywhere(text: str) -> dict[str, str]:
    return {
        "bare": text,
        "sentence": f"failed with ({text}), retry",
        "key=value": f"level=info k={text} n=1",
        "json": json.dumps({"k": text, "n": 1}),
        "url": f"https://h.example.org/p?k={quote(text)}&n=1",
        "percent-encoded": quote(f'"{text}"', safe=""),
        "percent-encoded through and through": "".join(f"%{byte:02x}" for byte in text.encode()),
        "json in json": json.dumps(json.dumps({"k": f"\n{text}"})),
    }


@pytest.mark.parametrize("name", TOKEN_SAMPLES)
def test_a_token_is_found_wherever_it_stands(name: str) -> None:
    value = TOKEN_VALUES[name]
    kept = [
        place
        for place, text in everywhere(TOKEN_SAMPLES[name]).items()
        for redacted in (redact(text, ONLY_TOKENS), redact(text))
        if redacted == text or _shows(value, redacted or "")
    ]
    assert kept == []


def _shows(value: str, text: str) -> bool:
    """Tell whether a third of a value is still to be read somewhere."""
    length = max(8, len(value) // 3)
    return any(value[i : i + length] in text for i in range(len(value) - length + 1))


@pytest.mark.parametrize("name", WEAK_TOKENS)
def test_every_word_of_a_weak_format_makes_it_count(name: str) -> None:
    for word in WEAK_TOKENS[name][1]:
        for spelt in (word, word.upper().replace(" ", "_"), word.replace(" ", "-")):
            text = json.dumps({spelt: TOKEN_VALUES[name]})
            assert TOKEN_VALUES[name] not in (redact(text, ONLY_TOKENS) or ""), text


@pytest.mark.parametrize("name", WEAK_TOKENS)
def test_a_weak_format_without_its_word_stays(name: str) -> None:
    for text in (TOKEN_VALUES[name], f"trace {TOKEN_VALUES[name]} done"):
        assert redact(text, ONLY_TOKENS) == text


@pytest.mark.parametrize("name", sorted(TOKEN_SAMPLES.keys() - NARROWER))
def test_a_token_that_lacks_a_character_stays(name: str) -> None:
    text = TOKEN_SAMPLES[name][:-1]
    assert redact(text, ONLY_TOKENS) == text


@pytest.mark.parametrize("name", sorted(TOKENS.keys() - WITHOUT_LETTERS))
def test_a_token_with_another_prefix_stays(name: str) -> None:
    template = TEMPLATES[name]
    whole = template if isinstance(template, str) else "".join(template)
    text = fill(name, without_literals(whole))
    assert redact(text, ONLY_TOKENS) == text


@pytest.mark.parametrize(
    "name", [name for name, template in TEMPLATES.items() if isinstance(template, str)]
)
def test_a_token_inside_a_word_stays(name: str) -> None:
    text = f"Zq9{TOKEN_SAMPLES[name]}"
    assert redact(text, ONLY_TOKENS) == text


@pytest.mark.parametrize(
    "text",
    [
        "sk-learn",
        "sk-learn-pipeline-v1-2024-experiment",
        "sk-booking-frontend-production-x",
        "sk-toggleable__control-checkbox--2",
        "pk_live_" + "a1B2" * 6,
        "AC" + "0a1b2c3d" * 4,
        "phc_" + "a1B2" * 11,
        "pk-lf-de9cebdf-5e58-40b2-a4f0-514b03d6e2e9",
        "secret_store_of_the_production_environment_eu",
        "fw_configurationmanagerfactoryimpl",
        "npm_config_cache_directory_of_the_build_agents",
        "datadog trace_id=4bf92f3577b34da6a3ce929d0e0e4736",
        "wandb run at commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "api-de9cebdf-5e58-40b2-a4f0-514b03d6e2e9 is ready",
        "aws secret rotated for 9fceb02d0ae598e95dc970b74767f19372d61af8",
        "cloudflare ray 8f2b3c4d5e6f7a8b-FRA",
        "the bot at 12:30 answered 45 times",
        "sha256:" + "0a1b2c3d" * 8,
        "open-webui-7d9f8b6c5d-x2x9k",
        "deepl request de9cebdf-5e58-40b2-a4f0-514b03d6e2e9",
        "test_0a1b2c3d4e5f",
        "glance-production-eu-west-1",
    ],
)
def test_names_and_ids_stay(text: str) -> None:
    assert redact(text, ONLY_TOKENS) is text


def test_the_newest_tokens_may_be_longer() -> None:
    for name in ("github", "openai", "slack", "anthropic", "hugging-face"):
        longer = TOKEN_VALUES[name] + "a1B2" * 100
        assert redact(longer, ONLY_TOKENS) == "[REDACTED_R0]"


@pytest.mark.parametrize("piece", ["sk-", "sk-1a-", "1//", "a/", "fw_a-", "key-", "SG.", "hf_"])
def test_time_grows_with_a_run_of_beginnings_not_with_its_square(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        started = time.process_time()
        redact(text, ONLY_TOKENS)
        return time.process_time() - started

    # Sixteen times the text, and with noise five times that; by the square it were 256 times. The
    # best of some, since a collection of all that the tests hold may fall into one.
    shorter, longer = (min(seconds(length) for _ in range(5)) for length in (2_500, 40_000))
    assert longer < 80 * max(shorter, 0.001)
