import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from sidecar.cache.values import MAX_VALUE_BYTES, CacheKeys, Codec
from sidecar.settings import SettingsError

SEARCH = b'[{"title": "one", "url": "https://example.com/1"}, {"title": "two"}]' * 20
ZSTD = b"\x41"


def secret(character: str) -> str:
    return base64.b64encode(character.encode() * 32).decode()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"a:{secret('A')}\n")
    return path


@pytest.fixture
def codec(file: Path) -> Codec:
    return Codec(CacheKeys.load(file))


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Codec]:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"a:{secret('A')}\n")
    return {"plain": Codec(), "sealed": Codec(CacheKeys.load(path))}


@pytest.fixture
def logs() -> Iterator[list[structlog.typing.EventDict]]:
    with capture_logs() as entries:
        yield entries


def test_a_small_value_is_stored_as_it_is_and_the_key_can_be_read() -> None:
    assert Codec().encode("key", b'{"a": 1}') == b'\x01{"a": 1}'
    assert Codec().decode("key", b'\x01{"a": 1}') == b'{"a": 1}'
    assert Codec().stored_name("tool:é") == "telemetry-cache:tool:é".encode()


def test_a_large_value_is_stored_compressed_where_that_saves_a_tenth() -> None:
    stored = Codec().encode("key", SEARCH)
    assert stored[:1] == ZSTD
    assert len(stored) < len(SEARCH) / 5
    assert Codec().decode("key", stored) == SEARCH
    noise = os.urandom(100_000)
    assert Codec().encode("key", noise) == b"\x01" + noise


def test_with_a_key_file_nothing_in_redis_can_be_read(codec: Codec) -> None:
    for value in (b"alice@example.com", b"alice@example.com" * 100, os.urandom(1000)):
        stored = codec.encode("tool:mail:alice", value)
        assert b"alice" not in stored
        assert value not in stored
        assert stored[1:3] == b"\x01a"
        assert codec.decode("tool:mail:alice", stored) == value
    name = codec.stored_name("tool:mail:alice")
    assert name.startswith(b"telemetry-cache:")
    assert len(name) == len(b"telemetry-cache:") + 64
    assert b"alice" not in name
    assert name != codec.stored_name("tool:mail:bob")


def test_equal_values_are_stored_differently(codec: Codec) -> None:
    assert codec.encode("key", b"value") != codec.encode("key", b"value")


def test_sealed_values_are_of_the_published_form(codec: Codec) -> None:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.hmac import HMAC

    derivation = HMAC(b"A" * 32, SHA256())
    derivation.update(b"telemetry-cache value\0" + b"key")
    cipher = AESGCM(derivation.finalize())
    stored = codec.encode("key", SEARCH)
    header, nonce, sealed = stored[:3], stored[3:15], stored[15:]
    assert header == b"\xc1\x01a"
    assert zstandard.decompress(cipher.decrypt(nonce, sealed, header + b"key")) == SEARCH
    own = b"\x81\x01a" + nonce + cipher.encrypt(nonce, b"value", b"\x81\x01akey")
    assert codec.decode("key", own) == b"value"


def test_a_value_that_was_moved_under_another_key_is_none(codec: Codec) -> None:
    assert codec.decode("other", codec.encode("key", b"value")) is None


@pytest.mark.parametrize("value", [b"value", SEARCH])
def test_a_sealed_value_with_any_byte_changed_or_missing_is_none(
    codec: Codec, value: bytes
) -> None:
    stored = codec.encode("key", value)
    for index in range(len(stored)):
        for bit in range(8):
            changed = bytearray(stored)
            changed[index] ^= 1 << bit
            assert codec.decode("key", bytes(changed)) is None
        assert codec.decode("key", stored[:index]) is None
    assert codec.decode("key", stored + b"\0") is None


def test_a_compressed_value_that_is_cut_short_or_longer_is_none() -> None:
    stored = Codec().encode("key", SEARCH)
    for length in range(len(stored)):
        assert Codec().decode("key", stored[:length]) is None
    assert Codec().decode("key", stored + b"\0") is None


def test_plain_values_are_not_taken_with_a_key_file_nor_sealed_ones_without(codec: Codec) -> None:
    for value in (b"value", SEARCH):
        assert codec.decode("key", Codec().encode("key", value)) is None
        assert Codec().decode("key", codec.encode("key", value)) is None


def test_other_versions_are_none(codec: Codec) -> None:
    for form in range(256):
        stored = bytes((form,)) + b"value"
        assert Codec().decode("key", stored) == (b"value" if form == 1 else None)
        assert codec.decode("key", stored) is None


def test_the_largest_value_is_taken_and_a_larger_one_is_not(codecs: dict[str, Codec]) -> None:
    for codec in codecs.values():
        for value in (bytes(MAX_VALUE_BYTES), os.urandom(MAX_VALUE_BYTES)):
            assert codec.decode("key", codec.encode("key", value)) == value
            assert codec.decode("key", codec.encode("key", value + b"0")) is None


def test_a_frame_that_claims_or_holds_too_much_is_none_and_takes_no_memory() -> None:
    bomb = zstandard.ZstdCompressor(level=1).compress(bytes(2**30))
    stream = zstandard.ZstdCompressor(level=1).compressobj()
    no_claim = stream.compress(bytes(2**24)) + stream.flush()
    huge_claim = b"\x28\xb5\x2f\xfd\xe0" + b"\xf0" * 8 + b"\x01\0\0"
    assert zstandard.frame_content_size(huge_claim) > 2**62
    script = (
        "import resource, sys\n"
        "from sidecar.cache.values import Codec\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "stored = bytes([0x41]) + sys.stdin.buffer.read()\n"
        "before = peak()\n"
        "assert Codec().decode('key', stored) is None\n"
        "print(peak() - before)\n"
    )
    for frame in (bomb, no_claim, huge_claim):
        ran = subprocess.run(
            [sys.executable, "-c", script], input=frame, capture_output=True, check=True
        )
        assert int(ran.stdout) < 8 * 1024  # KiB


@pytest.mark.parametrize("kind", ["plain", "sealed"])
@given(key=st.text(st.characters(exclude_categories=["Cs"])), value=st.binary(max_size=2000))
@example(key="", value=b"")
@example(key="key", value=bytes(255))
@example(key="key", value=bytes(256))
def test_what_is_stored_is_what_is_found(
    codecs: dict[str, Codec], kind: str, key: str, value: bytes
) -> None:
    assert codecs[kind].decode(key, codecs[kind].encode(key, value)) == value


_STARTS = st.sampled_from(
    [b"", b"\x01", ZSTD, ZSTD + zstandard.FRAME_HEADER, b"\x81\x01a", b"\xc1"]
)


@pytest.mark.parametrize("kind", ["plain", "sealed"])
@given(start=_STARTS, rest=st.binary(max_size=200))
def test_any_bytes_are_a_value_or_none(
    codecs: dict[str, Codec], kind: str, start: bytes, rest: bytes
) -> None:
    found = codecs[kind].decode("key", start + rest)
    if kind == "sealed":
        assert found is None  # nobody guesses a tag
    elif found is not None:
        assert len(found) <= MAX_VALUE_BYTES


@given(st.integers(0, 2**20), st.binary(min_size=1, max_size=8))
def test_a_compressed_value_with_bytes_changed_is_a_value_or_none(at: int, put: bytes) -> None:
    stored = bytearray(Codec().encode("key", SEARCH))
    at %= len(stored)
    stored[at : at + len(put)] = put
    found = Codec().decode("key", bytes(stored))
    assert found is None or len(found) <= MAX_VALUE_BYTES


def test_keys_change_without_a_moment_in_which_a_pod_reads_nothing(tmp_path: Path) -> None:
    old, new = f"old:{secret('A')}\n", f"new:{secret('B')}\n"
    steps = [old, old + new, new + old, new]
    pods = []
    for number in (1, 2):
        path = tmp_path / f"pod{number}"
        path.write_text(steps[0])
        pods.append((path, Codec(CacheKeys.load(path))))
    before = pods[0][1].encode("key", b"before")
    for step in steps[1:]:
        for path, codec in pods:  # one pod after another
            path.write_text(step)
            codec.refresh()
            for _, writer in pods:
                for _, reader in pods:
                    assert reader.decode("key", writer.encode("key", b"value")) == b"value"
        if step != new:
            assert pods[1][1].decode("key", before) == b"before"
    assert pods[1][1].decode("key", before) is None
    assert pods[0][1].encode("key", b"value")[2:5] == b"new"


def test_a_mounted_secret_whose_link_is_replaced_is_read_again(tmp_path: Path) -> None:
    for name, id_ in (("one", "a"), ("two", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"{id_}:{secret('A')}\n")
    (tmp_path / "data").symlink_to("one")
    codec = Codec(CacheKeys.load(tmp_path / "data" / "keys"))
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "data")
    codec.refresh()
    assert codec.encode("key", b"value")[2:3] == b"b"


def test_a_faulty_file_keeps_the_last_good_keys_and_says_so_once(
    file: Path, codec: Codec, logs: list[structlog.typing.EventDict]
) -> None:
    before = codec.encode("key", b"before")
    faults = [f"b:{secret('B')[:-4]}\n", "", None, "b:x\n", f"b:{secret('B')}\n"]
    seen = []
    for fault in faults:
        if fault is None:
            file.unlink()
        else:
            file.write_text(fault)
        for _ in range(3):
            codec.refresh()
        seen.append([entry["event"] for entry in logs])
        logs.clear()
        if fault != faults[-1]:
            assert codec.decode("key", before) == b"before"
    assert seen == [["cache_keys_not_taken"]] * 4 + [["cache_keys_taken"]]
    assert codec.decode("key", before) is None


def test_blank_lines_and_comments_are_passed_over(file: Path) -> None:
    file.write_text(f"# é\r\n\r\n  a:{secret('A')}  \r\n#b:x\n\n")
    assert Codec(CacheKeys.load(file)).encode("key", b"value")[2:3] == b"a"


SECRET = secret("S")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it holds no key"),
        (b"# nothing\n", "it holds no key"),
        (f"# one\n{SECRET}\n".encode(), "line 2 must be an id of 1 to 8 of A-Za-z0-9._-, a colon"),
        (f":{SECRET}".encode(), "line 1 must be an id"),
        (f"123456789:{SECRET}".encode(), "line 1 must be an id"),
        (f"a b:{SECRET}".encode(), "line 1 must be an id"),
        (f"é:{SECRET}".encode(), "line 1 must be an id"),
        (f"a:{SECRET}\na:{SECRET}".encode(), "line 2 has the id of a line before it"),
        (f"a:{SECRET[:-4]}".encode(), "the key in line 1 must be base64 of 32 bytes"),
        (f"a:{SECRET}AAAA".encode(), "the key in line 1 must be base64 of 32 bytes"),
        (f"a: {SECRET}".encode(), "the key in line 1 must be base64 of 32 bytes"),
        (f"a:{SECRET[:-1]}é".encode(), "the key in line 1 must be base64 of 32 bytes"),
        (b"\n\nb:" + b"S" * 32, "the key in line 3 must be base64 of 32 bytes"),
        (b"a:" + b"\xff" * 32, "it is not UTF-8 text"),
        (b"#" * 100_000, "it has more than 65536 bytes"),
    ],
)
def test_a_faulty_file_is_refused_with_its_line_and_nothing_of_a_key(
    file: Path, content: bytes, reason: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsError) as refusal:
        CacheKeys.load(file)
    message = str(refusal.value)
    assert message.startswith(f"SIDECAR_CACHE_KEY_FILE={str(file)!r}: {reason}")
    assert message.isprintable()
    assert SECRET[:6] not in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "none", "cannot be read: No such file or directory"),
        (tmp_path, "it is not a file"),
        (tmp_path / "a\0b", "cannot be read: it is no path"),
    ]:
        with pytest.raises(SettingsError, match=f"SIDECAR_CACHE_KEY_FILE=.*: {reason}"):
            CacheKeys.load(path)


def test_without_a_key_file_the_cipher_is_not_even_imported() -> None:
    script = (
        "import sys\n"
        "from sidecar.cache.values import Codec\n"
        "codec = Codec()\n"
        "codec.refresh()\n"
        "assert codec.decode('key', codec.encode('key', b'1' * 999)) == b'1' * 999\n"
        "assert not any(name.startswith('cryptography') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
