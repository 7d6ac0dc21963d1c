"""Text that nearly is what a detector finds: what costs most and yields nothing."""

from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from tests.redaction.token_samples import TOKEN_SAMPLES, TOKEN_VALUES

# By detector, for the ways in which its value is written.
NEAR_MATCHES: dict[str, tuple[str, ...]] = {
    "email": ("alice@example", "alice.o'neil+news@mail", "@example.com", "a.b.c.d.e.f"),
    "card": ("4111 1111 1111 1112", "5500005555555558", "3782.8224.6310.006", "4111-1111-1111"),
    "iban": ("FR7630006000011234567890188", "DE89 3704 0044 0532 0130 01", "GB29NWBK"),
    "us-ssn": ("000-12-3456", "666-45-6789", "900-45-6789", "457-55-546"),
    "phone": ("+1 555 01", "(415) 055-267", "0012", "415-155-2671", "call 12 34"),
    "ipv4": ("999.1.2.3", "1.2.3.4.5", "300.300.300.300", "10.1.2"),
    "ipv6": ("12:34:56:78:90", "a::b", "1:2:3:4:5:6:7", "fe80:::1"),
    "mac": ("00:1a:2b:3c:4d", "3c:22:fb:9a:10:7e:", "3c-22-fb-9a-10"),
    "url-credentials": ("https://user@host/", "postgres://svc:pw/", "redis://:"),
    "url-query": ("https://h.example.org/p?", "GET /p? HTTP/1.1", "POST /a/b/c"),
    "jwt": ("eyJhbGciOi.x", "eyJhbGciOiJIUzI1NiJ9", "eyJhbGciOiJIUzI1NiJ9."),
    "private-key": ("-----BEGIN PUBLIC KEY-----", "-----BEGIN RSA PRIVATE", "PRIVATE KEY-----"),
    "bearer": ("Bearer abcdefgh", "bearer realm=api", "Bearer a1"),
    "basic-auth": ("Basic YWxpY2U", "basic authentication", "Basic ABCDEFGHIJKL"),
    "authorization": ("authorization: required", "Authorization=none", '"authorization": '),
    "cookie": ("Cookie: none", "set-cookie: ", "cookies, biscuits"),
    "password-pair": (
        "password: required",
        "passwords: three",
        "passed=45",
        "secret: ${DB_SECRET}",
    ),
    "token-pair": ("token=abcdefgh", "api_key=None", "session: 12", "auth=basic"),
    "high-entropy": ("secret customer-orders-2024-export", "token 9fceb02d0ae598e95dc970b7"),
    "crypto-wallet": (
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5",
        "0xde0b295669a9fd93d5f28d9ec85e40f4cb697ba",
        "rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTi",
    ),
    "date-of-birth": ("born 31.02.1980", "date of birth: 45/45/1980", "dob 1980", "birthday 12"),
    "coordinates": ("lat=91.12345 lon=181.12345", "52.520008", "location 52.52,", "geo:"),
    "national-id": ("NIN QQ000000", "tax id 000000000", "CPF 111.111.111-11", "BSN 111111111"),
    "passport": ("passport 12", "passport no. A", "passport: none"),
    # A character short; and whole, where only a word nearby would tell what they are.
    "service-token": (
        *(value[:-1] for name, value in TOKEN_VALUES.items() if TOKEN_SAMPLES[name] == value),
        *(value for name, value in TOKEN_VALUES.items() if TOKEN_SAMPLES[name] != value),
    ),
}


def near_matches(redactor: Redactor) -> list[str]:
    """Return those, of all detectors in turn, in which the rules of a redactor find nothing."""
    return [
        near
        for group in NEAR_MATCHES.values()
        for near in group
        if redactor.string(text := f"{near} " * 3, "", Report(), {}) is text
    ]
