"""Secrets that are told by what stands around them: pairs, options, random text near a word."""

import base64
import json
from urllib.parse import quote

import pytest

from sidecar.redaction.report import Report
from tests.redaction.test_engine import engine, redact

# Put together here, so that no scanner takes them for real ones.
BASE64 = "q7Rk2" + "VbX9mT" + "4sLz8W" + "pE1nYc6D"
URL_SAFE = "Zx8-" + "kQ3vB7nM2rT_" + "5wJ9hL4gD6sF"
PADDED = "h2K9" + "dLq+7sVz/Xw3" + "RtYb5nJm8PcE0g" + "=="
HEX = "0f1e2d3c" * 4
GIT_HASH = "9fceb02d0ae598e95dc970b74767f19372d61af8"
UUID = "de9cebdf-5e58-40b2-a4f0-514b03d6e2e9"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"

FOUND = {
    "high-entropy": [
        (f"secret={BASE64}", BASE64),
        (f"secretKey: '{BASE64}'", BASE64),
        (f"the api key is {URL_SAFE}, keep it", URL_SAFE),
        (f'got {{"encryption_key": "{PADDED}"}}', PADDED),
        (f"{BASE64} is the new signing key", BASE64),
        (f"CLIENT_SECRET={URL_SAFE}", URL_SAFE),
        (f"credentials user:{BASE64}", BASE64),
        (f"x-access-key: {BASE64}", BASE64),
        (f"private key,{BASE64},", BASE64),
        (f"secret:{BASE64}", BASE64),
        (f"api_key={HEX}", HEX),
        (f'{{"clientSecret":"{HEX}"}}', HEX),
        (f"password: {HEX}", HEX),
    ],
    "password-pair": [
        ("mysql --host db --password hunter2", "hunter2"),
        ("tool --client-secret 'hunter2'", "hunter2"),
        ("<wsse:Password>hunter2</wsse:Password>", "hunter2"),
        ("<db_password>two words</db_password>", "two words"),
        ("spring.datasource.password=hunter2", "hunter2"),
        ("userPassword => 'hunter2'", "hunter2"),
        ("passphrase: c0rrect", "c0rrect"),
        ("db_pass2=hunter2", "hunter2"),
        ("the password is hunter2", "hunter2"),
        ("new password 'hunter2' set for bob", "hunter2"),
        ("my passphrase was 2late4this.", "2late4this."),
        ("curl -s -u admin:hunter2 https://h", "hunter2"),
        ("curl --user 'admin:hunter2' https://h", "hunter2"),
        ("sshpass -p hunter2 ssh h", "hunter2"),
        ("mysql -uroot -phunter2 -h db", "hunter2"),
        ("redis-cli -h cache -a hunter2 ping", "hunter2"),
        ("docker login -u bob -p hunter2 r.example.com", "hunter2"),
        ("DB_PASSWORD_1=hunter2", "hunter2"),
        ("client_secret_value=hunter2", "hunter2"),
        ("password_new=hunter2", "hunter2"),
        ("password-policy-secret=hunter2", "hunter2"),
        ("secret_name_password=hunter2", "hunter2"),
        ("password_storage=hunter2", "hunter2"),
        ("secret_id: hunter2", "hunter2"),
        ("password_policy=strict password=hunter2", "hunter2"),
        ("passwordMinLength=12&password=hunter2", "hunter2"),
        ('{"password_ttl":60,"password":"hunter2"}', "hunter2"),
        ('{"password_required": "yes", "secret": "hunter2"}', "hunter2"),
    ],
    "basic-auth": [
        (f"Basic {value}", value)
        for user in ("", "u", "us", "use", "user", "\u00e9")
        for value in [base64.b64encode(f"{user}:p4ss".encode()).decode()]
    ],
    "token-pair": [
        ("encryption_key=0a1b2c3d4e", "0a1b2c3d4e"),
        ("signing-key: 0a1b2c3d4e", "0a1b2c3d4e"),
        ("api key: 0a1b2c3d4e", "0a1b2c3d4e"),
        ("SharedAccessKey=0a1b2c3d4e", "0a1b2c3d4e"),
        ('{"csrf":"0a1b2c3d4e"}', "0a1b2c3d4e"),
        ("X-Api-Key: 0a1b2c3d4e", "0a1b2c3d4e"),
        ("tool --token 0a1b2c3d4e", "0a1b2c3d4e"),
        ("tool --my-api-key '0a1b2c3d4e' x", "0a1b2c3d4e"),
    ],
}

LEFT = {
    "high-entropy": [
        f"built {BASE64} of the image",
        f"token service at commit {GIT_HASH}",
        f"token refreshed for {UUID}",
        f"secret rotated, trace_id=4bf92f3577b34da6a3ce929d0e0e4736 {HEX}",
        "token 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        f"credential image sha256:{HEX}{HEX}",
        f"token sha512-{BASE64}{BASE64}",
        f"secret data:image/png;base64,{PNG}",
        f"secret picture {PNG}",
        "token usage total=12345678901234567890 prompt=11",
        "token count of text-embedding-3-large-instruct-v2-2024",
        "api key for Qwen2-5-72B-Instruct-AWQ-int4 missing",
        "secret /var/run/secrets/kubernetes.io/serviceaccount2/token",
        "secret mounted in openwebui-7d9f8b6c5d-x2x9k",
        "token chatcmpl-9f8sDk2LmQ7vXzR4tYb6 done",
        f"password changed, request req_{HEX}",
        "secret table customer_orders_2024_export_eu_west_1",
        "token GPU-5f3a1b2c-5e58-40b2-a4f0-514b03d6e2e9",
        "tokenizer.ggml.tokens=151936 access",
        "getUserAccountTokenFromCache2 raised in token",
        "token expires 2026-11-24T02-15-59Z-backup-of-the-week",
    ],
    "password-pair": [
        "use --password to set it",
        "tool --password --verbose",
        "<password></password>",
        "<password/>",
        "tests passed=45 failed=0",
        "MAX_PASSES = 256",
        "PASSWORD_MIN_LENGTH=12",
        "password_policy=strict",
        "SECRET_NAME=open-webui-secrets",
        "DB_PASSWORD_FILE=run/secrets/db2",
        "PasswordAuthentication: Off",
        "secretName: Open-webui-2",
        '{"passwordPolicy": "strict", "password_min_length": 12}',
        "{'secret_version': 'v3', 'password_changed_at': '2026-11-23'}",
        "('password_hasher', 'argon2')",
        "pass_rate=0.98",
        "password is 12 characters long",
        "the password is required",
        "the password was changed 3 days ago",
        "docker run --user 1000:1000 -p 8080:8080 image",
        "mysql -p app",
        "mysql -P 3306 -h db",
        "curl -s https://h/user:1",
        "docker compose up -p project",
    ],
    "basic-auth": ["basic abcd", "Basic " + base64.b64encode(b"no colon here").decode()],
    "token-pair": [
        "signing key: rotated",
        "api key: missing",
        "token: /var/run/secrets/token1",
        "completion_tokens=1234",
        "run --max-tokens 4096 --token auto",
        "--token-file /run/secrets/token1",
    ],
}


def found(detector: str, text: str) -> list[str]:
    report = Report(detailed=True)
    redactor = engine({"find": detector, "action": {"replace": {"with": ""}}}).redactor("logs")
    redactor.string(text, "", report, {})
    return [text[finding.start : finding.end] for finding in report.findings]


@pytest.mark.parametrize(
    ("detector", "text", "value"),
    [(name, text, value) for name, rows in FOUND.items() for text, value in rows],
)
def test_it_finds(detector: str, text: str, value: str) -> None:
    assert found(detector, text) == [value]


@pytest.mark.parametrize(
    ("detector", "text"), [(name, text) for name, texts in LEFT.items() for text in texts]
)
def test_it_leaves(detector: str, text: str) -> None:
    assert found(detector, text) == []


@pytest.mark.parametrize("value", [BASE64, URL_SAFE, PADDED])
def test_random_text_is_found_in_every_encoding(value: str) -> None:
    redactor = engine({"find": "high-entropy"}).redactor("logs")
    for text in (
        json.dumps(json.dumps({"secret": value})),
        f"https://h/p?secret={quote(value, safe='')}&n=1",
        quote(f'{{"secret": "{value}"}}', safe=""),
    ):
        redacted = redact(text, redactor)
        assert redacted is not None
        assert value[:8] not in redacted
        assert value[-10:-2] not in redacted


def test_a_long_secret_leaves_no_tail() -> None:
    redactor = engine({"find": "high-entropy"}).redactor("logs")
    assert redact(f"secret={BASE64 * 20}", redactor) == "secret=[REDACTED_R0]"
