"""What each built-in detector finds, and what it leaves alone."""

import base64
import hashlib

import pytest

from sidecar.redaction.detectors import DETECTORS
from sidecar.redaction.report import Report
from tests.redaction.test_engine import engine

FOUND = {
    "national-id": [
        ("codice fiscale RSSMRA85T10A562S,", "RSSMRA85T10A562S"),
        ("820.831.284-35", "820.831.284-35"),
        ("BSN: 707432649", "707432649"),
        ('got {"pesel":"02482778789"}', "02482778789"),
    ],
    "passport": [
        ("passport no. C01X00T47", "C01X00T47"),
        ('got {"passportNumber": "123456789"}', "123456789"),
        ("Reisepass C01X00T47", "C01X00T47"),
    ],
    "coordinates": [
        ("location: 52.52000, 13.40495", "52.52000, 13.40495"),
        ('{"lat":52.52000}', "52.52000"),
        ("geo:48.2010,16.3695", "48.2010,16.3695"),
    ],
    "date-of-birth": [
        ("born 1985-03-17", "1985-03-17"),
        ('got {"dateOfBirth": "17/03/1985"}', "17/03/1985"),
        ("geboren am 17. März 1985", "17. März 1985"),
    ],
    "high-entropy": [("secret=q7Rk2VbX9mT4sLz8WpE1nYc6D", "q7Rk2VbX9mT4sLz8WpE1nYc6D")],
    "crypto-wallet": [("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",) * 2],
    "email": [
        ("mail <alice.o'neil+news@mail.example.co.uk>", "alice.o'neil+news@mail.example.co.uk"),
        ("user=bob_1@example.org;", "bob_1@example.org"),
        ("'carol@example.com'", "carol@example.com"),
        ("ratelimit:bob.smith@corp.example.org:29924317", "bob.smith@corp.example.org"),
        ("josé@exämple.de", "josé@exämple.de"),
        ("a@xn--exmple-cua.xn--p1ai", "a@xn--exmple-cua.xn--p1ai"),
    ],
    "card": [
        ("4111111111111111", "4111111111111111"),
        ("pay 5500-0000-0000-0004.", "5500-0000-0000-0004"),
        ("3782 822463 10005", "3782 822463 10005"),
        ("card=6011000990139424&", "6011000990139424"),
        ("4222222222222", "4222222222222"),
        ("ref 12 4111 1111 1111 1111 200", "4111 1111 1111 1111"),
    ],
    "iban": [
        ("FR7630006000011234567890189", "FR7630006000011234567890189"),
        ("to GB29 NWBK 6016 1331 9268 19 by", "GB29 NWBK 6016 1331 9268 19"),
        ("de89370400440532013000", "de89370400440532013000"),
    ],
    "us-ssn": [("457-55-5462", "457-55-5462"), ("id 457 55 5462,", "457 55 5462")],
    "phone": [
        ("+1 (415) 555-2671", "+1 (415) 555-2671"),
        ("call 415.555.2671 x12 now", "415.555.2671 x12"),
        ("tel:+442071838750", "+442071838750"),
        ("0044 20 7183 8750", "0044 20 7183 8750"),
        ("(415) 555-2671", "(415) 555-2671"),
        ("tel +442071838750 200", "+442071838750"),
        ("+44 20 7183 8750 2 items", "+44 20 7183 8750"),
        ("call me at 415 555 2671", "415 555 2671"),
        ("+1\u00a0415\u2011555\u20112671", "+1\u00a0415\u2011555\u20112671"),
    ],
    "ipv4": [("203.0.113.77:80", "203.0.113.77"), ("from 10.218.6.131.", "10.218.6.131")],
    "ipv6": [
        ("[2001:db8::8a2e:370:7334]:80", "2001:db8::8a2e:370:7334"),
        ("d80:e4b5:79da:6cf6:71f3:51f7:9161:c319", "d80:e4b5:79da:6cf6:71f3:51f7:9161:c319"),
        ("::ffff:203.0.113.77", "::ffff:203.0.113.77"),
        ("2001:db8::8a2e:370:7334:51766", "2001:db8::8a2e:370:7334"),
        ("ratelimit:2001:db8::1:29924317", "2001:db8::1"),
    ],
    "mac": [("3c:22:FB:9a:10:7e", "3c:22:FB:9a:10:7e"), ("3C-22-fb-9a-10-7e", "3C-22-fb-9a-10-7e")],
    "url-credentials": [
        ("https://svc-user:Pa55w0rd-Zq@h.example.com/x", "svc-user:Pa55w0rd-Zq@"),
        ("redis://:s3cret@cache:6379/0", ":s3cret@"),
    ],
    "url-query": [
        ("see https://h/p?q=bob ok", "https://h/p?q=bob"),
        ('"GET /a/b?c=d%20e HTTP/1.1"', "/a/b?c=d%20e"),
    ],
    "jwt": [
        (
            "t eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln.",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
        )
    ],
    "private-key": [
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----",) * 2,
        ("cut -----BEGIN PRIVATE KEY-----\nMII", "-----BEGIN PRIVATE KEY-----\nMII"),
    ],
    "bearer": [("Authorization: Bearer 0a1b2c3d4e5f==", "0a1b2c3d4e5f==")],
    "basic-auth": [("basic YWxpY2U6c2VjcmV0", "YWxpY2U6c2VjcmV0")],
    "cookie": [("Set-Cookie: sid=31d4; Path=/", "sid=31d4; Path=/")],
    "authorization": [
        ("Authorization: Token abc123def456", "abc123def456"),
        ("{'authorization': 'Bearer abc123def456'}", "abc123def456"),
        ("(b'authorization', b'ab12cd34ef')", "ab12cd34ef"),
    ],
    "password-pair": [
        ("password=hunter2&x=1", "hunter2"),
        ('{"password": "ab,hunter2"}', "ab,hunter2"),
        ("password='correct horse battery staple'", "correct horse battery staple"),
        ("password=b'hunter2'", "hunter2"),
        ("{'password': ['hunter2']}", "hunter2"),
        ('password => "hunter2"', "hunter2"),
        ("password:hunter2", "hunter2"),
        ("DB_PASS=hunter2", "hunter2"),
        ("password_confirmation=hunter2", "hunter2"),
        ('{"db_password": "s3cret"}', "s3cret"),
        ("PGPASSWORD='x y'", "x y"),
        ("client_secret: abc1", "abc1"),
    ],
    "token-pair": [
        ("api_key=0a1b2c3d4e", "0a1b2c3d4e"),
        ('{"access-key":"0a1b2c3d4e"}', "0a1b2c3d4e"),
        ("token: ab12cd34ef", "ab12cd34ef"),
    ],
    "service-token": [
        ("key sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8t,", "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8t"),
    ],
}

LEFT = {
    "national-id": [
        "RSSMRA85T10A562T",
        "820.831.284-36",
        "BSN: 707432648",
        "row 707432649",
        "9a3c-820.831.284-35",
    ],
    "passport": ["part C01X00T47", "passport.js 0.7.0", "passport photo 640x480"],
    "coordinates": [
        "at 52.52000, 13.40495",
        "location 52.5, 13.4",
        "embedding 0.12345, 0.45678",
        "latency=12.34567",
    ],
    "date-of-birth": ["released 1985-03-17", "born in 3 regions", "2026-11-23 21:07:26"],
    "high-entropy": ["token at 9fceb02d0ae598e95dc970b74767f19372d61af8"],
    "crypto-wallet": ["bc1-frontend-production"],
    "email": [
        "@decorator.call",
        "user@localhost",
        "a @ b.com",
        "alice at example.com",
        "pkg@1.2.3",
    ],
    "card": [
        "4111111111111112",
        "1795459041011874643",
        "a4111111111111111",
        "0000 0000 0000 0000",
        "0.69118833221950049",
        "62332179-8539-4a27-9c3e-0123456789ab",
    ],
    "iban": ["FR7630006000011234567890188", "GB29 is a code", "deadbeefdeadbeefdeadbeef"],
    "us-ssn": ["000-12-3456", "666-12-3456", "912-12-3456", "123-00-4567", "1-457-55-5462-1"],
    "phone": [
        "2026-11-23 21:07:26",
        "1.45.1",
        "+12345678",
        '"GET / HTTP/1.1" 200 512 1234',
        "00358497-56b9-4a27-8bd0-0123456789ab",
        "0049061238feb623d839eac6d0ae4fd5",
        "127.0.0.1:51766",
        "123-456-7890",
        "+1",
        "v2.0+build",
    ],
    "ipv4": ["1.2.3", "256.1.1.1", "v1.2.3.4", "1.2.3.4.5"],
    "ipv6": ["21:07:26", "std::string", "a::b", "12:34", "http://x:80"],
    "mac": ["3c:22:fb:9a:10", "3c:22:fb:9a:10:7e:11"],
    "url-credentials": ["http://h:80/a@b", "mailto:a@b"],
    "url-query": ["https://h/p", "what? yes", "GET /health HTTP/1.1"],
    "jwt": ["eyJ.a.b", "eyJhbGciOiJIUzI1NiJ9"],
    "private-key": ["-----BEGIN PUBLIC KEY-----"],
    "bearer": ["bearer authentication", "the bearer of news"],
    "basic-auth": ["basic authentication", "basic plan"],
    "cookie": ["the cookie jar", "cookie: yes", "Set-Cookie: header missing"],
    "authorization": ["authorization: required", "authorization failed"],
    "password-pair": [
        "password required",
        "password: none",
        "password=****",
        "compass = north",
        "password: field required",
        "SET password = :password",
        "password=$1",
        "PWD=/app/backend",
    ],
    "token-pair": ["auth:token:de9cebdf-5e58:revoked", "token expected", "prompt_token=100000000"],
    "service-token": [
        "sk-booking-frontend-production-x",
        "sk-learn",
        "ghp_short",
        "AKIA",
        "task-1",
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
    assert found(detector, text)[0] == value


@pytest.mark.parametrize(
    ("detector", "text"), [(name, text) for name, texts in LEFT.items() for text in texts]
)
def test_it_leaves(detector: str, text: str) -> None:
    assert found(detector, text) == []


@pytest.mark.parametrize(
    ("detector", "text"),
    [
        ("token-pair", "token={}&x=y"),
        ("bearer", "Authorization: Bearer {}"),
        ("authorization", "authorization: {}"),
        ("authorization", "Authorization: Token {}"),
        ("basic-auth", "Basic {}"),
        ("password-pair", '{{"password": "{}"}}'),
        ("password-pair", "password={}"),
        ("jwt", "eyJ{0}.{0}.{0}"),
    ],
)
def test_long_secrets_leave_no_tail(detector: str, text: str) -> None:
    digests = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(100))
    secret = base64.urlsafe_b64encode(b"user:" + digests).decode().rstrip("=")
    (value,) = found(detector, text.format(secret))
    assert value.endswith(secret)


def test_every_detector_has_examples() -> None:
    assert FOUND.keys() == LEFT.keys() == DETECTORS.keys()
