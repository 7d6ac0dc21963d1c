import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.redaction.sanitize import sanitize_redis
from tests.captured import PLANTED, captures, flat

_LOCK_SCRIPT = (
    "\n    if redis.call('get', KEYS[1]) == ARGV[1] then\n        return 1\n    end\n     "
)


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            "MGET open-webui:ratelimit:bob@corp.example.org:29924317 open-webui:models:signature",
            "MGET open-webui:ratelimit:? open-webui:models:signature",
        ),
        ("INCRBY open-webui:ratelimit:bob@corp.example.org:2 1", "INCRBY open-webui:ratelimit:? ?"),
        ("GET open-webui:auth:token:de9cebdf-5e58:revoked", "GET open-webui:auth:token:?"),
        ("GET user:alice", "GET user:?"),
        ("GET chat_user:alice", "GET chat_user:?"),
        ("GET alice.johnson", "GET ?"),
        ("GET session:AbCdEfGh", "GET session:?"),
        ("GET cache:AbCdEfGh", "GET cache:?"),
        ("GET user bob smith", "GET user ?"),
        ("DEL session:bob smith", "DEL session:? ?"),
        ("GET 'cache:v1:bob smith'", "GET cache:v1:? ?"),
        ("HSCAN open-webui:session_pool 0 b'COUNT' 200", "HSCAN open-webui:session_pool ?"),
        ("SET lock f8e09c6a NX EX 60", "SET lock ?"),
        ('HSET open-webui:models gpt {"a": "b c"}', "HSET open-webui:models ?"),
        ("MSET a:b my secret name c:d v", "MSET a:b ?"),
        (f"EVAL {_LOCK_SCRIPT}1 app:lock f8e0 60", "EVAL ? 1 app:lock ?"),
        ("EVAL return 1", "EVAL ?"),
        ("EVALSHA 2067d915 2 app:lock app:x3 bob", "EVALSHA ? 2 app:lock app:? ?"),
        ("XADD app:events * name bob", "XADD app:events ?"),
        ("XREADGROUP GROUP g bob STREAMS app:s >", "XREADGROUP ? STREAMS app:s ?"),
        ("XGROUP CREATE app:s bob $", "XGROUP CREATE app:s ?"),
        ("PUBLISH chat:room-7 hello bob", "PUBLISH chat:? ?"),
        ("SUBSCRIBE app:updates user:bob", "SUBSCRIBE app:updates user:?"),
        ("SCAN 0 MATCH open-webui:* COUNT 9", "SCAN ? MATCH open-webui:* ?"),
        ("CONFIG SET requirepass hunter2", "CONFIG SET ?"),
        ("CLIENT SETNAME bob", "CLIENT SETNAME ?"),
        ("ACL SETUSER bob on >pw", "ACL SETUSER ?"),
        ("CONFIG bob", "CONFIG ?"),
        ("AUTH bob hunter2", "AUTH ?"),
        ("HELLO 3 AUTH bob hunter2", "HELLO ?"),
        ("JSON.SET app:doc $ {}", "JSON.SET app:doc ?"),
        ("NEWCOMMAND bob", "NEWCOMMAND ?"),
        ("Alice Johnson", "?"),
        ("GET app:x\nSET user:bob secret", "GET app:x\nSET user:? ?"),
        ("SET app:x hello\nGET well bob", "SET app:x ?\nGET well ?"),
        ("SET app:x hello\nget well bob", "SET app:x ?"),
    ],
)
def test_command_and_fixed_prefix_stay(command: str, expected: str) -> None:
    assert sanitize_redis(command) == expected


@pytest.mark.parametrize(
    "command",
    [
        "",
        "PING",
        "GET config",
        "get open-webui:models:signature",
        "HGETALL open-webui:usage_pool",
        "DEL app:a app:b",
        "SET ? ?",
        "MGET ? ? ?",
        "CONFIG GET ?",
        "MULTI\nGET app:x\nEXEC",
    ],
)
def test_what_holds_no_value_is_returned_as_it_is(command: str) -> None:
    assert sanitize_redis(command) is command


_NAMES = """
    GET SET MGET MSET HSET DEL EVAL EVALSHA XADD XREADGROUP SCAN CONFIG AUTH PUBLISH JSON.SET FOO
    SUBSCRIBE ZADD CLIENT XGROUP HELLO
"""
_COMMANDS = st.sampled_from(_NAMES.split())
_ARGUMENTS = """? 1 2 app:x user:bob x STREAMS MATCH SET CREATE 'q' "a b" b'x' a: :"""
_WORDS = st.lists(
    st.sampled_from([*_ARGUMENTS.split(), "\n"]) | st.text(max_size=4), max_size=8
).map(" ".join)
_STATEMENTS = st.tuples(_COMMANDS, _WORDS).map(" ".join)


@given(st.text() | _STATEMENTS | st.lists(_STATEMENTS, max_size=3).map("\n".join))
def test_sanitizing_twice_changes_nothing_more(text: str) -> None:
    once = sanitize_redis(text)
    assert sanitize_redis(once) is once


@given(
    _COMMANDS,
    st.sampled_from(["zqx9", "user:zqx", "app:zqx@h", "k zqx", "app:x 'zqx y'", '"zqx9 1 app:x"']),
)
def test_no_value_is_left(command: str, arguments: str) -> None:
    assert "zqx" not in sanitize_redis(f"{command} {arguments}")


def test_no_planted_value_is_left_in_a_captured_command() -> None:
    commands = [
        value
        for otlp, body in captures()
        for path, value in flat(otlp.request.FromString(body))
        if path.endswith("(db.statement).value.string_value")
    ]
    assert any(planted in command for command in commands for planted in PLANTED)
    cleaned = [sanitize_redis(command) for command in commands]
    assert not any(planted in command for command in cleaned for planted in PLANTED)
    assert "MGET open-webui:ratelimit:? " in "\n".join(cleaned)
