from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.settings import (
    Settings,
    SettingsError,
    default_rules_dir,
    describe,
    load_settings,
    unknown_variables,
    variables,
)

ROOT = Path(__file__).parent.parent


def test_the_defaults_need_nothing() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert settings.exporters == ("stdout",)
    assert settings.rules_dir == default_rules_dir()
    assert settings.redis_url == "redis://localhost:6379"


def test_an_empty_redis_url_means_none_and_other_empty_values_the_default() -> None:
    settings = load_settings({"REDIS_URL": "", "SIDECAR_PORT": "", "LOKI_URL": ""})
    assert settings == Settings(redis_url="")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"SIDECAR_PORT": "abc"}, "SIDECAR_PORT='abc' is not allowed: use a port from 1 to 65535"),
        ({"SIDECAR_PORT": "0"}, "SIDECAR_PORT='0' is not allowed: use a port from 1 to 65535"),
        (
            {"SIDECAR_OTLP_GRPC_PORT": "65536"},
            "SIDECAR_OTLP_GRPC_PORT='65536' is not allowed: "
            "use a port from 1 to 65535, or 0 to turn it off",
        ),
        (
            {"LOG_LEVEL": "loud"},
            "LOG_LEVEL='loud' is not allowed: use DEBUG, INFO, WARNING, ERROR or CRITICAL",
        ),
        (
            {"SIDECAR_EXPORTERS": "otlp,kafka"},
            "SIDECAR_EXPORTERS='otlp,kafka' is not allowed: "
            "use a comma list of otlp, loki, stdout, blackhole",
        ),
        (
            {"LOKI_URL": "ftp://u:hidden@loki"},
            "LOKI_URL=(hidden) is not allowed: use a URL with http:// or https://",
        ),
        (
            {"REDIS_URL": "http://:hidden@redis"},
            "REDIS_URL=(hidden) is not allowed: use a URL with redis://, rediss://, "
            "redis+sentinel:// or redis+cluster://, or nothing for the in-memory cache alone",
        ),
        (
            {"OTEL_EXPORTER_OTLP_HEADERS": "hidden", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"},
            "OTEL_EXPORTER_OTLP_HEADERS=(hidden) is not allowed: "
            "use name=value pairs joined by commas, values percent-encoded",
        ),
        ({"SIDECAR_DRAIN_SECONDS": "nan"}, "SIDECAR_DRAIN_SECONDS='nan' is not allowed: "),
        (
            {"SIDECAR_EXPORTERS": "otlp"},
            "SIDECAR_EXPORTERS names otlp, so OTEL_EXPORTER_OTLP_ENDPOINT must be set",
        ),
        ({"SIDECAR_EXPORTERS": "loki"}, "SIDECAR_EXPORTERS names loki, so LOKI_URL must be set"),
        (
            {"SIDECAR_PORT": "4318"},
            "SIDECAR_OTLP_HTTP_PORT='4318' is not allowed: SIDECAR_PORT has it already",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"},
            "OTEL_EXPORTER_OTLP_ENDPOINT points at this sidecar's own port 4318",
        ),
        ({"SIDECAR_MEMORY_LIMIT": "null"}, "SIDECAR_MEMORY_LIMIT='null' is not allowed"),
        (
            {"SIDECAR_QUEUE_SYNC": "maybe"},
            "SIDECAR_QUEUE_SYNC='maybe' is not allowed: use full or normal",
        ),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL='http/json' is not allowed: use http/protobuf or grpc",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://u:hidden@c:4317/v1/logs",
            },
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=(hidden) is not allowed when "
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc: use http://host:port or https://host:port",
        ),
        (
            {"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE": "/c.pem"},
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE is set, so OTEL_EXPORTER_OTLP_CLIENT_KEY "
            "must be set",
        ),
        (
            {"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/c.key"},
            "OTEL_EXPORTER_OTLP_CLIENT_KEY is set, so OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE "
            "must be set",
        ),
        ({"SIDECAR_PORT": "tcp://10.0.0.1:80"}, "use a port from 1 to 65535 (Kubernetes sets such"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(environ: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(environ)
    assert message in str(caught.value)
    assert "hidden@" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(sorted(variables())), st.text(st.characters(exclude_characters="\0"))
    )
)
def test_any_environment_is_taken_or_refused_in_one_line(environ: dict[str, str]) -> None:
    try:
        load_settings(environ)
    except SettingsError as error:
        assert any(name in str(error) for name in variables())
        assert str(error).isprintable()


def test_secrets_come_from_files(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("redis://:secret@cache:6379\n")
    assert load_settings({"REDIS_URL_FILE": str(file)}).redis_url == "redis://:secret@cache:6379"
    with pytest.raises(SettingsError, match="REDIS_URL and REDIS_URL_FILE are both set"):
        load_settings({"REDIS_URL_FILE": str(file), "REDIS_URL": "redis://other"})
    with pytest.raises(SettingsError, match=r"REDIS_URL_FILE='.*none': cannot be read: No such"):
        load_settings({"REDIS_URL_FILE": str(tmp_path / "none")})


def test_the_file_of_cache_keys_stays_a_path(tmp_path: Path) -> None:
    environ = {"SIDECAR_CACHE_KEY_FILE": str(tmp_path / "keys")}
    settings = load_settings(environ)
    assert settings.sidecar_cache_key_file == str(tmp_path / "keys")
    assert unknown_variables(environ) == []
    assert describe(settings)["sidecar_cache_key_file"] == str(tmp_path / "keys")


def test_otlp_endpoints_follow_the_specification() -> None:
    settings = load_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://logs/otlp",
            "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Basic%20eA==, x-tenant = a",
        }
    )
    assert settings.otlp_endpoints == {
        "traces": "http://collector:4318/v1/traces",
        "metrics": "http://collector:4318/v1/metrics",
        "logs": "http://logs/otlp",
    }
    assert settings.otlp_headers == {"authorization": "Basic eA==", "x-tenant": "a"}
    assert settings.exporters == ("otlp",)


def test_otlp_endpoints_of_grpc_have_no_path() -> None:
    settings = load_settings(
        {
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317/",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "https://logs:4317",
        }
    )
    assert settings.otlp_endpoints == {
        "traces": "http://collector:4317",
        "metrics": "http://collector:4317",
        "logs": "https://logs:4317",
    }


def test_exporters_are_those_with_an_address_or_those_listed() -> None:
    addresses = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "LOKI_URL": "http://l"}
    assert load_settings(addresses).exporters == ("otlp", "loki")
    listed = {**addresses, "SIDECAR_EXPORTERS": "stdout, otlp,"}
    assert load_settings(listed).exporters == ("otlp", "stdout")


def test_misspelt_variables_are_told_and_those_of_kubernetes_are_not() -> None:
    environ = {
        "SIDECAR_PROT": "1",
        "SIDECAR_PORT": "8000",
        "SIDECAR_HASH_KEY_FILE": "/f",
        "SIDECAR_SERVICE_HOST": "10.0.0.1",
        "SIDECAR_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert unknown_variables(environ) == ["SIDECAR_PROT"]


def test_secrets_are_hidden_in_the_log() -> None:
    settings = load_settings({"REDIS_URL": "redis://:s3cret@cache", "SIDECAR_HASH_KEY": "s3cret"})
    assert "s3cret" not in str(describe(settings))


def test_the_readme_lists_every_variable_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text()
    for variable, default in variables().items():
        row = next(
            (line for line in readme.splitlines() if line.startswith(f"| `{variable}`")), None
        )
        assert row is not None, variable
        if default and variable not in {"TELEMETRY_CACHE_VERSION"}:
            assert f"`{default}`" in row, variable
