"""E-mail addresses, US social security, cards, IBANs, places and dates of birth."""

from functools import cache

import pytest

from sidecar.redaction.redactor import Redactor
from sidecar.redaction.report import Report
from tests.redaction.test_engine import engine, found

DEGREES = "40\u00b026\u203246\u2033N, 79\u00b058\u203256\u2033W"

FOUND = {
    "email": [
        ("mail alice.o'neil+news@mail.example.co.uk", "alice.o'neil+news@mail.example.co.uk"),
        ("to bob_1@example.org;", "bob_1@example.org"),
        ("jürgen@exämple.de", "jürgen@exämple.de"),
        ("राम@उदाहरण.भारत", "राम@उदाहरण.भारत"),
        ("a@xn--exmple-cua.xn--p1ai", "a@xn--exmple-cua.xn--p1ai"),
        ("wang@163.com", "wang@163.com"),
        ("ops@v2.example.com", "ops@v2.example.com"),
        ("ops@1und1.de", "ops@1und1.de"),
        ("ken.@example.jp", "ken.@example.jp"),
        ('got {"to":"carol@example.com"}', "carol@example.com"),
    ],
    "us-ssn": [
        ("SSN 457-55-5462", "457-55-5462"),
        ("457\u201155\u20115462", "457\u201155\u20115462"),
        ("457_55_5462", "457_55_5462"),
        ("457.55.5462", "457.55.5462"),
        ("457\t55\t5462", "457\t55\t5462"),
        ("id 457  55  5462", "457  55  5462"),
        ("ssn is 404 55 5462", "404 55 5462"),
        ("ssn: 457555462", "457555462"),
        ("social security number 457555462.", "457555462"),
        ("000-12-3456 457-55-5462", "457-55-5462"),
    ],
    "card": [
        ("4111111111111111", "4111111111111111"),
        ("pay 5500-0000-0000-0004.", "5500-0000-0000-0004"),
        ("3782 822463 10005", "3782 822463 10005"),
        ("3056 930902 5904", "3056 930902 5904"),
        ("4222 222 222 222", "4222 222 222 222"),
        ("4111_1111_1111_1111", "4111_1111_1111_1111"),
        ("4111.1111.1111.1111", "4111.1111.1111.1111"),
        ("4111\t1111\t1111\t1111", "4111\t1111\t1111\t1111"),
        ("4111  1111  1111  1111", "4111  1111  1111  1111"),
        ("4111\u00a01111\u00a01111\u00a01111", "4111\u00a01111\u00a01111\u00a01111"),
        ("4111 1111 1111 1111 200", "4111 1111 1111 1111"),
        ("key_4111111111111111", "4111111111111111"),
        ("6759649826438453", "6759649826438453"),
        ("2223003122003222", "2223003122003222"),
        ("card 501800000009", "501800000009"),
        ("card 5018 0000 0009", "5018 0000 0009"),
        ("card 4006381000093", "4006381000093"),
        ("billed amount for cc 501800000009", "501800000009"),
        ("4222-2222-2222-2", "4222-2222-2222-2"),
        ("3782 8224 6310 005", "3782 8224 6310 005"),
        ("3590046114622676", "3590046114622676"),
        ("1111 2222 3333 4444 4111 1111 1111 1111", "4111 1111 1111 1111"),
    ],
    "iban": [
        ("FR7630006000011234567890189", "FR7630006000011234567890189"),
        ("to GB29 NWBK 6016 1331 9268 19 by", "GB29 NWBK 6016 1331 9268 19"),
        ("de89370400440532013000", "de89370400440532013000"),
        ("DE89_3704_0044_0532_0130_00", "DE89_3704_0044_0532_0130_00"),
        ("DE89\t3704\t0044\t0532\t0130\t00", "DE89\t3704\t0044\t0532\t0130\t00"),
        ("DE89  3704  0044  0532  0130  00", "DE89  3704  0044  0532  0130  00"),
        ("IBAN DE89 37040044 0532013000 today", "DE89 37040044 0532013000"),
        ("iban is: DE89 370400440532013000", "DE89 370400440532013000"),
        ("MT84MALT011000012345MTLCAST001S", "MT84MALT011000012345MTLCAST001S"),
        ("NO9386011117947", "NO9386011117947"),
        ("DE00 3704 DE89370400440532013000", "DE89370400440532013000"),
    ],
    "coordinates": [
        ("location: 52.52000, 13.40495", "52.52000, 13.40495"),
        ("gps=-33.86882,151.20930", "-33.86882,151.20930"),
        ("coordinates 40.7128\u00b0 N, 74.0060\u00b0 W", "40.7128\u00b0 N, 74.0060\u00b0 W"),
        ('{"latitude": 52.52000}', "52.52000"),
        ("?lng=-122.41942&x", "-122.41942"),
        ("geo:48.2010,16.3695,183", "48.2010,16.3695,183"),
        ("POINT(13.40495 52.52000)", "13.40495 52.52000"),
        ("/maps/place/@52.52000,13.40495,15z", "52.52000,13.40495"),
        ("52\u00b031'12.0\"N 13\u00b024'18.1\"E", "52\u00b031'12.0\"N 13\u00b024'18.1\"E"),
        ("at 40\u00b026\u203246\u2033N, 79\u00b058\u203256\u2033W", DEGREES),
    ],
    "date-of-birth": [
        ("born 1985-03-17", "1985-03-17"),
        ("Date of birth: 17/03/1985", "17/03/1985"),
        ("DOB 03.17.85", "03.17.85"),
        ('got {"birth_date":"1985-03-17T00:00:00Z"}', "1985-03-17T00:00:00Z"),
        ("she was born on March 17th, 1985 in Rome", "March 17th, 1985"),
        ("birthday is 17 March 1985", "17 March 1985"),
        ("geboren am 17. März 1985", "17. März 1985"),
        ("fecha de nacimiento: 17 de marzo de 1985", "17 de marzo de 1985"),
        ("dateOfBirth=19850317", "19850317"),
    ],
}

LEFT = {
    "email": [
        "user@localhost",
        "npm@10.2.4",
        "lodash@4.17.21.tgz",
        "foo@v1.2.3.tgz",
        "react@18.2.0-canary.next",
        "@app.route",
        "git clone user@host:path",
        "a @ b.com",
        "x = a@b",
    ],
    "us-ssn": [
        "000-12-3456",
        "666-12-3456",
        "912-12-3456",
        "457-00-5462",
        "457-55-0000",
        "457-55.5462",
        "1-457-55-5462-1",
        '"GET / HTTP/1.1" 200 51 1234',
        "GET /health 200 51 1234",
        "rows 12 457 55 5462",
        "order 457555462",
    ],
    "card": [
        "4111111111111112",
        "4111 1111-1111 1111",
        "1795459041011874643",
        "6800000000000000",
        "a4111111111111111",
        "0.4111111111111111",
        "4111 1111 1111",
        "4111 1111 1111 1112",
        "order 501800000009",
        "order 5018 0000 0009",
        "article 4006381000093",
        "card 5018 0000-0009",
        "62332179-8539-4a27-9c3e-0123456789ab",
    ],
    "iban": [
        "FR7630006000011234567890188",
        "GB29 is a code",
        "GB00 WEST 1234 5698 7654 32",
        "ZZ89370400440532013000",
        "deadbeefdeadbeefdeadbeef",
        "DE893704004405320130001",
        "the iban is DE12 and more words follow here",
    ],
    "coordinates": [
        "loss 0.12345, 0.45678",
        "lat 120.12345 ms",
        "bbox location [0.12345, 0.45678, 0.91234, 0.99999]",
        "location: 91.12345, 181.12345",
        "version 52.52000 of location",
        "margin: 12.3456px 12.3456px",
        "latency=12.34567",
        "location eu-west 1.2, 3.4",
    ],
    "date-of-birth": [
        "2026-11-23 21:07:26",
        "released 1985-03-17",
        "date: 17/03/1985",
        "born in 3 regions",
        "newborn 1985-03-17",
        "birth rate 12.3",
    ],
}


@cache
def finding(detector: str) -> Redactor:
    return engine({"find": detector}).redactor("logs")


@pytest.mark.parametrize(
    ("detector", "text", "value"),
    [(name, text, value) for name, rows in FOUND.items() for text, value in rows],
)
def test_it_finds(detector: str, text: str, value: str) -> None:
    assert found(text, finding(detector)) == [value]


@pytest.mark.parametrize(
    ("detector", "text"), [(name, text) for name, texts in LEFT.items() for text in texts]
)
def test_it_leaves(detector: str, text: str) -> None:
    assert found(text, finding(detector)) == []


@pytest.mark.parametrize("detector", ["coordinates", "date-of-birth"])
def test_it_leaves_a_value_that_no_word_explains(detector: str) -> None:
    value = FOUND[detector][0][1]
    assert found(f"at {value} today", finding(detector)) == []


@pytest.mark.parametrize(
    ("detector", "value"),
    [
        ("us-ssn", "457-55-5462"),
        ("card", "4111 1111 1111 1111"),
        ("card", "378282246310005"),
        ("iban", "GB29 NWBK 6016 1331 9268 19"),
    ],
)
def test_values_side_by_side_are_all_found(detector: str, value: str) -> None:
    assert found(", ".join([value] * 5), finding(detector)) == [value] * 5


# What passes nearly all of a pattern: 40 kB of it may not take long.
NEAR_MISSES = {
    "card": ["4111 1111 1111 1112 ", "4111 1111 ", "4111111111111112 ", "3782 822463 10006 "],
    "iban": ["GB00 WEST 1234 5698 7654 32 ", "GB29 NWBK 6016 1331 9268 18 ", "AB12 CDEF "],
    "us-ssn": ["000-12-3456 ", "457-55-546 ", "200 51 "],
    "email": ["a@b ", "lodash@4.17.21.tgz ", "a.b.c@"],
    "phone": ["+1 555 0100 ", "+44 20 7183 ", "call 12 ", "555-0100 ", "21:07:26 "],
    "ipv4": ["999.999.999.999 ", "1.2.3.4.5 ", "version 1.2.3.4 "],
    "ipv6": ["1:2:3:4:5:6:7:", "1:2:3:4:5:6:7:8:9:", "a::b ", "::", "fe80:", "21:07:26 "],
    "mac": ["3c:22:fb:9a:10:", "3c-22-fb-9a-10-7e-"],
    "national-id": ["bsn 123456789 ", "RSSMRA85T10A562T ", "123.456.789-00 ", "756.1234.5678.90 "],
    "coordinates": ["lat 12.34567 ", "location 1.2 "],
    "date-of-birth": ["born 12 ", "12/03/1985 "],
}


@pytest.mark.parametrize(
    ("detector", "text"), [(name, text) for name, texts in NEAR_MISSES.items() for text in texts]
)
def test_what_only_looks_like_a_value_is_left(detector: str, text: str) -> None:
    repeated = text * (40_000 // len(text))
    assert finding(detector).string(repeated, "", Report(), {}) is repeated
