"""The stored form: what Redis holds for a key and its value, and the keys that hide both.

    stored = format, body                                          1 byte, the rest
    stored = format, n, id of the key, nonce, body sealed by it    1, 1, n, 12 bytes, the rest

The format's low four bits are the version, 1; `_ZSTD` and `_SEALED` tell what was done to the body.
Whatever is not of this form is no value: other programs and later versions may write to the same
Redis.

Sealed is AES-256-GCM (NIST SP 800-38D) with a random nonce; what is authenticated beside the body
is format, n, id and the cache key, so that no value can be passed off under another key.
"""

import binascii
import hashlib
import hmac
import os
import re
import stat
from base64 import b64decode
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
import zstandard

from sidecar.settings import SettingsError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_PREFIX = b"telemetry-cache:"
MAX_VALUE_BYTES = 2**20

_VERSION = 0x01
_ZSTD = 0x40
_SEALED = 0x80
_FORMATS = {_VERSION, _VERSION | _ZSTD, _VERSION | _SEALED, _VERSION | _ZSTD | _SEALED}

_NONCE_BYTES = 12
_TAG_BYTES = 16
_MAX_ID_BYTES = 8
_MAX_STORED_BYTES = MAX_VALUE_BYTES + 2 + _MAX_ID_BYTES + _NONCE_BYTES + _TAG_BYTES

# JSON of search results at level 1: 128 bytes become 0.88, 256 bytes 0.82, 1 KiB 0.60, 100 KiB 0.33
# of their size, in 3, 4, 6 and 290 µs. Below 256 bytes that saves less than Redis spends on a key.
_ZSTD_LEVEL = 1
_ZSTD_FROM_BYTES = 256
_ZSTD_AT_MOST = 0.9

_VARIABLE = "SIDECAR_CACHE_KEY_FILE"
_KEY_BYTES = 32
_MAX_FILE_BYTES = 2**16
_KEY_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{_MAX_ID_BYTES}}}")

_log = structlog.get_logger(__name__)


class CacheKeys:
    """The keys of a file: the first one seals, all of them open.

    A line is ``<id>:<base64 of 32 bytes>``, the id 1 to 8 characters out of ``A-Za-z0-9._-``; empty
    lines and those that begin with ``#`` are passed over. To go to a new key: add it as the second
    line everywhere, then move it to the first, then remove the old one.
    """

    def __init__(self, path: Path, keys: dict[str, bytes], stamp: tuple[int, ...]) -> None:
        self._path = path
        self._keys = keys
        self._stamp = stamp
        self._fault = ""

    @classmethod
    def load(cls, path: str | Path) -> "CacheKeys":
        """Read a file.

        Raises:
            SettingsError: it cannot be read, or a line is wrong; the message names the line and
                holds nothing of it.
        """
        # Now rather than in the first call; and not at all, which saves 7 MiB, without a key file.
        import cryptography.hazmat.primitives.ciphers.aead  # noqa: F401

        path = Path(path)
        stamp = _stamp(path)  # before the content: what changes in between is read again
        return cls(path, _read(path), stamp)

    def refresh(self) -> None:
        """Read the file again if it has changed; a file with a fault changes nothing."""
        try:
            stamp = _stamp(self._path)
            if stamp == self._stamp:
                return
            keys = _read(self._path)
        except SettingsError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                _log.warning("cache_keys_not_taken", reason=self._fault)
            return
        self._keys, self._stamp, self._fault = keys, stamp, ""
        _log.info("cache_keys_taken", ids=list(keys))

    def seal(self, key: str, form: int, body: bytes) -> bytes:
        """Return the stored form of a body under a cache key, with the first key of the file."""
        id_, secret = next(iter(self._keys.items()))
        header = bytes((form, len(id_))) + id_.encode()
        nonce = os.urandom(_NONCE_BYTES)
        return header + nonce + _cipher(secret, key).encrypt(nonce, body, header + key.encode())

    def open(self, key: str, stored: bytes) -> bytes | None:
        """Return the body of a stored form, or None when no key of the file sealed it so."""
        from cryptography.exceptions import InvalidTag

        start = 2 + stored[1] if len(stored) > 1 else 2
        header, nonce = stored[:start], stored[start : start + _NONCE_BYTES]
        secret = self._keys.get(header[2:].decode("latin-1"))
        if secret is None or len(stored) < start + _NONCE_BYTES + _TAG_BYTES:
            return None
        sealed = stored[start + _NONCE_BYTES :]
        try:
            return _cipher(secret, key).decrypt(nonce, sealed, header + key.encode())
        except InvalidTag:
            return None


class Codec:
    """Between a value and its stored form.

    Args:
        keys: with them names are hashed, values are sealed, and only sealed values are taken;
            without them only values that are not.
    """

    def __init__(self, keys: CacheKeys | None = None) -> None:
        self._keys = keys
        self._compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def refresh(self) -> None:
        """Take up a change of the key file; to be called every now and then, costs a stat."""
        if self._keys is not None:
            self._keys.refresh()

    def stored_name(self, key: str) -> bytes:
        """Return the name of a key in Redis: readable, or with a key file its SHA-256 in hex.

        Who knows a key, or guesses it, can tell that it is there; the value stays hidden.
        """
        if self._keys is None:
            return KEY_PREFIX + key.encode()
        return KEY_PREFIX + hashlib.sha256(key.encode()).hexdigest().encode()

    def encode(self, key: str, value: bytes) -> bytes:
        """Return the stored form of a value of at most `MAX_VALUE_BYTES`."""
        form, body = _VERSION, value
        if len(value) >= _ZSTD_FROM_BYTES:
            smaller = self._compressor.compress(value)
            if len(smaller) <= _ZSTD_AT_MOST * len(value):
                form, body = _VERSION | _ZSTD, smaller
        if self._keys is None:
            return bytes((form,)) + body
        return self._keys.seal(key, form | _SEALED, body)

    def decode(self, key: str, stored: bytes) -> bytes | None:
        """Return the value, or None when this is no stored form of one under this key.

        That is: another version, sealed by a key that is not in the file, changed, cut short, more
        than `MAX_VALUE_BYTES`, or sealed and without a key file, or the other way round.
        """
        if not stored or len(stored) > _MAX_STORED_BYTES or stored[0] not in _FORMATS:
            return None
        if bool(stored[0] & _SEALED) != (self._keys is not None):
            return None
        body = stored[1:] if self._keys is None else self._keys.open(key, stored)
        if body is not None and stored[0] & _ZSTD:
            body = self._decompressed(body)
        return body if body is not None and len(body) <= MAX_VALUE_BYTES else None

    def _decompressed(self, body: bytes) -> bytes | None:
        try:
            # The library reserves what the frame claims, whatever limit it is given; -1: no claim.
            if not 0 < zstandard.frame_content_size(body) <= MAX_VALUE_BYTES:
                return None
            return self._decompressor.decompress(body, allow_extra_data=False)
        except zstandard.ZstdError:
            return None


def _cipher(secret: bytes, key: str) -> "AESGCM":
    """Return the cipher for one cache key.

    SP 800-38D (section 8.3) allows a key 2**32 random nonces. Thousands of pods write as much in
    days, so each cache key has a secret of its own, by HMAC-SHA256 (SP 800-108, one block).
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hmac.digest(secret, b"telemetry-cache value\0" + key.encode(), "sha256"))


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what differs once a file has other content; a mounted secret is replaced by links."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise _refusal(path, "it is not a file")
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read(path: Path) -> dict[str, bytes]:
    """Return id → key, in the order of the file."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise _unreadable(path, error) from None
    except UnicodeDecodeError:
        raise _refusal(path, "it is not UTF-8 text") from None
    if len(content) > _MAX_FILE_BYTES:
        raise _refusal(path, f"it has more than {_MAX_FILE_BYTES} bytes")
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        id_, colon, encoded = line.partition(":")
        if not colon or not _KEY_ID.fullmatch(id_):
            raise _refusal(
                path, f"line {number} must be an id of 1 to 8 of A-Za-z0-9._-, a colon and a key"
            )
        if id_ in keys:
            raise _refusal(path, f"line {number} has the id of a line before it")
        try:
            keys[id_] = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            keys[id_] = b""
        if len(keys[id_]) != _KEY_BYTES:
            raise _refusal(path, f"the key in line {number} must be base64 of {_KEY_BYTES} bytes")
    if not keys:
        raise _refusal(path, "it holds no key")
    return keys


def _unreadable(path: Path, error: Exception) -> SettingsError:
    reason = error.strerror if isinstance(error, OSError) else "it is no path"
    return _refusal(path, f"cannot be read: {reason}")


def _refusal(path: Path, reason: str) -> SettingsError:
    return SettingsError(f"{_VARIABLE}={str(path)!r}: {reason}")
