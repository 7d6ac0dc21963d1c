"""Detector of crypto wallets: addresses, and the keys that open them.

Most addresses carry a checksum, by which they are told from any other word of the same alphabet:
Base58Check (a double SHA-256 of what stands before, cut to four bytes) and Bech32 (BIP 173, BIP
350). Ethereum's and Monero's rest on Keccak-256, which the standard library has not: their shape
alone is unlikely enough. A Solana address is nothing but a public key, so it counts near a word.
"""

import re
from array import array
from functools import lru_cache, reduce
from hashlib import sha256
from operator import xor

from sidecar.redaction.detectors.base import Detector, Shape, whole

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# The XRP Ledger has its own order: https://xrpl.org/docs/references/protocol/data-types/base58-encodings
_XRP = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_FROM_XRP = str.maketrans(_XRP, _BASE58)
_VALUES58 = bytes.maketrans(_BASE58.encode(), bytes(range(58)))
_ANY58 = "[1-9A-HJ-NP-Za-km-z]"

# The byte before a hash of 20, by network: https://en.bitcoin.it/wiki/List_of_address_prefixes,
# `chainparams` of Litecoin and Dogecoin, https://developers.tron.network/docs/account
_ADDRESS_VERSIONS = frozenset(
    {0x00, 0x05, 0x6F, 0xC4}  # Bitcoin: P2PKH, P2SH, both on the test network
    | {0x30, 0x32, 0x3A}  # Litecoin
    | {0x1E, 0x16, 0x71}  # Dogecoin
    | {0x41}  # Tron
)
# Before a private key in wallet import format: Bitcoin, test network, Litecoin, Dogecoin.
_KEY_VERSIONS = frozenset({0x80, 0xEF, 0xB0, 0x9E, 0xF1})
_ADDRESS_SIZE, _KEY_SIZE = 1 + 20, 1 + 32

_BEFORE = r"(?:^|[^0-9A-Za-z])"
_END = r"(?:$|[^0-9A-Za-z])"
# `1` is a zero byte, so an address that begins with many is shorter.
_ADDRESS58 = rf"{_BEFORE}(?P<value>[123mnLMA9DT]{_ANY58}{{25,33}}){_END}"
_XRP_ACCOUNT = rf"{_BEFORE}(?P<value>r{_ANY58}{{24,34}}){_END}"
_XRP_SEED = rf"{_BEFORE}(?P<value>s{_ANY58}{{28}}){_END}"
_WIF = rf"{_BEFORE}(?P<value>[5KL9cT6Q]{_ANY58}{{50,51}}){_END}"
# BIP 32 and SLIP 132. A private one is redacted whatever its checksum.
_EXTENDED = rf"{_BEFORE}(?P<value>[a-zA-Z](?:prv|pub)[0-9A-Za-z]{{107,108}}){_END}"
_ETHEREUM = rf"{_BEFORE}(?P<value>0x[0-9a-fA-F]{{40}}){_END}"
_MONERO = rf"{_BEFORE}(?P<value>[48][0-9AB]{_ANY58}{{93}}(?:{_ANY58}{{11}})?){_END}"
_SOLANA = rf"{_BEFORE}(?P<value>{_ANY58}{{32,44}}){_END}"
_SOLANA_KEY = rf"{_BEFORE}(?P<value>{_ANY58}{{86,88}}){_END}"
_SOLANA_WORDS = ("solana", "sol address", "sol wallet", "phantom wallet", "lamports", "spl token")

_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_VALUES = bytes.maketrans(_BECH32.encode(), bytes(range(32)))
_BECH32_CHARACTER = "[02-9ac-hj-np-z]"
# Programs of 20 and of 32 bytes; BIP 173 lets an address be all in capitals, as QR codes have it.
_SEGWIT = (
    rf"{_BEFORE}(?P<value>(?i:(?:bc|tb|ltc|tltc)1(?:{_BECH32_CHARACTER}{{59}}|"
    rf"{_BECH32_CHARACTER}{{39}}))){_END}"
)
# https://cips.cardano.org/cip/CIP-19: a payment part, mostly with a stake part.
_CARDANO = (
    rf"{_BEFORE}(?P<value>(?:addr|stake)(?:_test)?1(?:{_BECH32_CHARACTER}{{98}}|"
    rf"{_BECH32_CHARACTER}{{53,60}})){_END}"
)
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CONSTANTS = frozenset({1, 0x2BC830A3})  # Bech32, and Bech32m of BIP 350
_HEX = re.compile("[0-9a-f]+|[0-9A-F]+")


def _step(check: int) -> int:
    """Return a checksum, moved by one character."""
    top = check >> 25
    check = (check & 0x1FFFFFF) << 5
    for bit, generator in enumerate(_GENERATOR):
        if top >> bit & 1:
            check ^= generator
    return check


def _worth_by_place(places: int) -> "list[array[int]]":
    """Return what each character adds to the checksum, by how many stand behind it.

    The checksum is linear: that of a text is the sum (XOR) of those of its characters.
    """
    rows = [array("I", range(len(_BECH32)))]
    while len(rows) < places:
        rows.append(array("I", map(_step, rows[-1])))
    return rows


_WORTH = _worth_by_place(103)


@lru_cache
def _prefix_worth(prefix: str, length: int) -> int:
    """Return what the part before the last ``1`` adds to the checksum of so many characters."""
    check = 1
    for value in (*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix)):
        check = _step(check) ^ value
    for _ in range(length):
        check = _step(check)
    return check


def _number58(text: str) -> int:
    digits = text.encode().translate(_VALUES58)
    number = 0
    # Two digits at a time halve the steps.
    for first, second in zip(digits[::2], digits[1::2], strict=False):
        number = number * 3364 + 58 * first + second
    return number * 58 + digits[-1] if len(digits) % 2 else number


def _is_base58check(text: str, size: int, versions: frozenset[int]) -> bool:
    """Tell whether a text is Base58Check of so many bytes, the first of them a known version."""
    number = _number58(text)
    # The version first: it refuses most, and costs least.
    if number >> 8 * (size + 3) not in versions:
        return False
    decoded = number.to_bytes(size + 4, "big")
    return sha256(sha256(decoded[:-4]).digest()).digest()[:4] == decoded[-4:]


def _is_address58(text: str) -> bool:
    return _is_base58check(text, _ADDRESS_SIZE, _ADDRESS_VERSIONS)


def _is_wif(text: str) -> bool:
    # One byte more says that the public key is compressed, and makes the text longer by one.
    return _is_base58check(text, _KEY_SIZE + (len(text) == 52), _KEY_VERSIONS)


def _is_xrp_account(text: str) -> bool:
    return _is_base58check(text.translate(_FROM_XRP), _ADDRESS_SIZE, frozenset({0x00}))


def _is_xrp_seed(text: str) -> bool:
    return _is_base58check(text.translate(_FROM_XRP), 1 + 16, frozenset({0x21}))


def _is_solana(text: str) -> bool:
    """Tell whether a text is 32 bytes, and no digest in decimal or hexadecimal digits."""
    return _HEX.fullmatch(text) is None and 248 < _number58(text).bit_length() <= 256


def _is_solana_key(text: str) -> bool:
    return 504 < _number58(text).bit_length() <= 512


def _is_bech32(text: str) -> bool:
    """Tell whether the checksum of a Bech32 or Bech32m text is right (BIP 173, BIP 350)."""
    lower = text.lower()
    if text not in {lower, text.upper()}:
        return False
    prefix, _, data = lower.rpartition("1")
    worth = map(array.__getitem__, _WORTH, reversed(data.encode().translate(_BECH32_VALUES)))
    return reduce(xor, worth, _prefix_worth(prefix, len(data))) in _BECH32_CONSTANTS


DETECTORS = (
    Detector(
        name="crypto-wallet",
        shapes=(
            Shape(pattern=_ADDRESS58, narrow=whole(_is_address58)),
            Shape(pattern=_WIF, narrow=whole(_is_wif)),
            Shape(pattern=_XRP_ACCOUNT, narrow=whole(_is_xrp_account)),
            Shape(pattern=_XRP_SEED, narrow=whole(_is_xrp_seed)),
            Shape(pattern=_SEGWIT, narrow=whole(_is_bech32)),
            Shape(pattern=_CARDANO, narrow=whole(_is_bech32)),
            Shape(pattern=_EXTENDED),
            Shape(pattern=_ETHEREUM),
            Shape(pattern=_MONERO),
            Shape(pattern=_SOLANA, narrow=whole(_is_solana), near=_SOLANA_WORDS),
            Shape(pattern=_SOLANA_KEY, narrow=whole(_is_solana_key), near=_SOLANA_WORDS),
        ),
    ),
)
