"""Wallets of each network are found by their checksum, and what has none stays."""

from hashlib import sha256

import pytest

from sidecar.redaction.detectors.crypto import _BASE58, _BECH32, _FROM_XRP
from tests.redaction.test_engine import engine, redact

WALLETS = engine({"find": "crypto-wallet"}).redactor("logs")
TO_XRP = {there: here for here, there in _FROM_XRP.items()}
PAYLOAD = sha256(b"payload").digest()


def base58check(version: int, payload: bytes) -> str:
    body = bytes([version]) + payload
    raw = body + sha256(sha256(body).digest()).digest()[:4]
    number, digits = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + digits


def base58(payload: bytes) -> str:
    number, digits = int.from_bytes(payload, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = _BASE58[digit] + digits
    return digits


# From the documents that define the formats, or made of a hash by their rules.
FOUND = {
    "Bitcoin, the first address": "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    "Bitcoin P2PKH": base58check(0x00, PAYLOAD[:20]),
    "Bitcoin P2PKH with zeros": base58check(0x00, bytes(3) + PAYLOAD[:17]),
    "Bitcoin P2SH": base58check(0x05, PAYLOAD[:20]),
    "Bitcoin test network": base58check(0x6F, PAYLOAD[:20]),
    "Bitcoin segwit (BIP 173)": "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
    "Bitcoin segwit in capitals": "BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4",
    "Bitcoin P2WSH (BIP 173)": "tb1qrp33g0q5c5txsp9arysrx4k6zdkfs4nce4xj0gdcccefvpysxf3q0sl5k7",
    "Bitcoin taproot (BIP 350)": "bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0",
    "Litecoin": base58check(0x30, PAYLOAD[:20]),
    "Litecoin P2SH": base58check(0x32, PAYLOAD[:20]),
    "Dogecoin": base58check(0x1E, PAYLOAD[:20]),
    "Tron": base58check(0x41, PAYLOAD[:20]),
    "XRP account": base58check(0x00, PAYLOAD[:20]).translate(TO_XRP),
    "XRP seed": base58check(0x21, PAYLOAD[:16]).translate(TO_XRP),
    "Ethereum (EIP-55)": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "Ethereum in small letters": "0x" + PAYLOAD[:20].hex(),
    "Monero": "4" + "8" + base58(PAYLOAD * 3)[:93],
    "Monero integrated": "4" + "A" + base58(PAYLOAD * 3)[:104],
    "Cardano (CIP-19)": (
        "addr1qx2fxv2umyhttkxyxp8x0dlpdt3k6cwng5pxj3jhsydzer3n0d3vllmyqwsx5wktcd8cc3sq835lu7drv2"
        "xwl2wywfgse35a3x"
    ),
    "Cardano stake (CIP-19)": "stake1uyehkck0lajq8gr28t9uxnuvgcqrc6070x3k9r8048z8y5gh6ffgw",
    "private key (WIF)": base58check(0x80, PAYLOAD),
    "private key (WIF, compressed)": base58check(0x80, PAYLOAD + b"\x01"),
    "extended private key": base58check(0x04, bytes.fromhex("88ade4") + bytes(10) + PAYLOAD * 2),
}

PLACES = ["{}", "to={}&n=1", '{{"to":"{}"}}', "https://h/address/{}/txs", "sent to {}, ok"]


@pytest.mark.parametrize("name", FOUND)
@pytest.mark.parametrize("place", PLACES)
def test_a_wallet_is_found(name: str, place: str) -> None:
    assert redact(place.format(FOUND[name]), WALLETS) == place.format("[REDACTED_R0]")


def with_another_character(text: str) -> str:
    """Return a text with a wrong character near its end, of the same alphabet."""
    place = len(text) - 3
    alphabet = _BECH32 if "1q" in text.lower() or "1u" in text or "1p" in text else _BASE58
    alphabet = alphabet.upper() if text.isupper() else alphabet
    other = alphabet[(alphabet.index(text[place]) + 1) % len(alphabet)]
    return text[:place] + other + text[place + 1 :]


WITHOUT_CHECKSUM = {
    "Ethereum (EIP-55)",
    "Ethereum in small letters",
    "Monero",
    "Monero integrated",
    "extended private key",
}


@pytest.mark.parametrize("name", sorted(FOUND.keys() - WITHOUT_CHECKSUM))
def test_a_wrong_checksum_stays(name: str) -> None:
    text = with_another_character(FOUND[name])
    assert redact(text, WALLETS) == text


@pytest.mark.parametrize("name", sorted(WITHOUT_CHECKSUM))
def test_a_shape_that_lacks_a_character_stays(name: str) -> None:
    text = FOUND[name][:-1]
    assert redact(text, WALLETS) == text


SOLANA = base58(bytes([0x7F]) + PAYLOAD[1:])


def test_a_solana_address_counts_near_a_word() -> None:
    assert redact(f"solana transfer to {SOLANA}", WALLETS) == "solana transfer to [REDACTED_R0]"
    assert redact(f"transfer to {SOLANA}", WALLETS) == f"transfer to {SOLANA}"
    key = base58(bytes([0x7F]) + (PAYLOAD * 2)[1:])
    assert redact(f"solana key {key}", WALLETS) == "solana key [REDACTED_R0]"


@pytest.mark.parametrize(
    "text",
    [
        "9fceb02d0ae598e95dc970b74767f19372d61af8",
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "de9cebdf-5e58-40b2-a4f0-514b03d6e2e9",
        "sha256:" + "0a1b2c3d" * 8,
        "0x7f3a9c001000",
        "0x" + "0" * 64,
        "1234567890123456789012345678901",
        "32168421684216842168421684216842",
        "LongIdentifierNameFromSomeModule",
        "TaskRunnerFactoryBeanConfigurer",
        "3FZbgi29cpjq2GjdwV8eyHuJJnkLtktZc6",
        "solana trace 4bf92f3577b34da6a3ce929d0e0e4736",
        "bc1-frontend-production",
        "addr1=10 stake1=20",
    ],
)
def test_ids_and_names_stay(text: str) -> None:
    assert redact(text, WALLETS) is text
