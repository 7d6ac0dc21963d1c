"""Phone numbers: what tells them apart by itself, and what takes a word."""

import pytest

from sidecar.redaction.report import Report
from tests.redaction.test_engine import found
from tests.redaction.test_personal import finding

ALONE = [
    ("+1 (415) 555-2671", "+1 (415) 555-2671"),
    ("+14155552671", "+14155552671"),
    ("+1-177-892-0730x52646", "+1-177-892-0730x52646"),
    ("001-748-088-2851x818.", "001-748-088-2851x818"),
    ("415.555.2671 ext. 12 now", "415.555.2671 ext. 12"),
    ("(415) 555-2671", "(415) 555-2671"),
    ("(415)555-2671x99", "(415)555-2671x99"),
    ("tel:+442071838750", "+442071838750"),
    ("+44 (0)20 7183 8750", "+44 (0)20 7183 8750"),
    ("+44 20 7183 8750 2 items", "+44 20 7183 8750"),
    ("+442071838750 200", "+442071838750"),
    ("(+57)6017000083", "(+57)6017000083"),
    ("+(371) 32093644", "+(371) 32093644"),
    ("(+49 30 901820)", "+49 30 901820"),
    ("0044 20 7183 8750", "0044 20 7183 8750"),
    ("+49 30/901820", "+49 30/901820"),
    ("+33\t1\t42\t68\t53\t00", "+33\t1\t42\t68\t53\t00"),
    ("+33  1  42  68  53  00", "+33  1  42  68  53  00"),
    ("+33_1_42_68_53_00", "+33_1_42_68_53_00"),
    ("+1\u00a0415\u2011555\u20112671", "+1\u00a0415\u2011555\u20112671"),
]
NEAR_A_WORD = [
    ("Telefon: 030 901820", "030 901820"),
    ("ring me, my number is 020 7183 8750", "020 7183 8750"),
    ("téléphone 01 42 68 53 00", "01 42 68 53 00"),
    ("téléphone : 01.42.68.53.00", "01.42.68.53.00"),
    ("Handy 0171/2345678", "0171/2345678"),
    ("cellulare 347 123 4567", "347 123 4567"),
    ("teléfono (91) 123 45 67", "(91) 123 45 67"),
    ("his mobile was (03) 9123 4567", "(03) 9123 4567"),
    ("reach us at 9123 4567.", "9123 4567"),
    ("please call 555 0123", "555 0123"),
    ("You can call me on 70 12 34 56", "70 12 34 56"),
    ("text me: 0412 345 678", "0412 345 678"),
    ("WhatsApp 612 345 678", "612 345 678"),
    ("fax 166-684-7899", "166-684-7899"),
    ("call me at 415 555 2671", "415 555 2671"),
    ("22 49 83 17 office", "22 49 83 17"),
    ("2813882583 mobile\nnext", "2813882583"),
    ("phone 2813882583", "2813882583"),
    ("Tel. 02 9123 4567 (home)", "02 9123 4567"),
    ("phone: 021-4006034", "021-4006034"),
    ("They're not answering at 2103758150", "2103758150"),
    ("You can call 13414624947", "13414624947"),
    ("call me on 210 7542470", "210 7542470"),
    ("my new number is 34257696, please", "34257696"),
    ("My telephone number was changed to 2880 676 951", "2880 676 951"),
    ("stop receiving messages from 35 65 90 87", "35 65 90 87"),
    ("on my registered 033 069 213.", "033 069 213"),
    ("Ada called from (01632) 960 586 at noon", "(01632) 960 586"),
    ("Tel. 61/688 9799", "61/688 9799"),
    ("Telefon 06-1/979 1000", "06-1/979 1000"),
    ("Telefon (06)37/949-2092", "(06)37/949-2092"),
    ("12846956 office", "12846956"),
    ("Text Ada Lovelace at 92 55 53 65", "92 55 53 65"),
    ("Contact Dr. O'Neil on 0783357381 before noon", "0783357381"),
    ("phone 26610 90 004", "26610 90 004"),
    ("tel 02/123 45 67", "02/123 45 67"),
    ("phone: 8 (834) 256-5233", "8 (834) 256-5233"),
    ("mobile 57 607 546 33 89", "57 607 546 33 89"),
    ("mobile (08).6886.6544", "(08).6886.6544"),
    ("phone 0412.345.678", "0412.345.678"),
    ("freephone: tel 0800 09 03", "0800 09 03"),
    ("phone 08-35 58 10", "08-35 58 10"),
    ("phone +37096890360", "+37096890360"),
]
LEFT = [
    "2026-11-23 21:07:26",
    "2026-11-23T21:07:26+01:00",
    '"GET / HTTP/1.1" 200 512 1234',
    "00358497-56b9-4a27-8bd0-0123456789ab",
    "0049061238feb623d839eac6d0ae4fd5",
    "127.0.0.1:51766",
    "123-456-7890",
    "+12345678",
    "+1200345678900",
    "+1 555 0100",
    "00 20 00 00 00 00 00 00",
    "030 901820",
    "01 42 68 53 00",
    "(91) 123 45 67",
    "v2.0+build",
    "number of retries: 3",
    "call took 1200345 ms",
    "rpc call 8412345 took 12 ms",
    "text length 2048",
    "line number 120 4567",
    "model number 7260-4411",
    "order number 45012345678",
    "number: 1700000000",
    "phone service on ports 8080 8443",
    "home 1024 2048 4096",
    "number is 1024 2048",
    "1200345 mobile users",
    "12003456 mobile users",
    "office hours 08 30 17 30",
    "call on 2026-11-23",
    "call at 21:07:26.123456",
    "tool call call_9f8a7b6c5d4e returned in 1234 ms",
    "phone_calls_total 12345",
    "version number 01.02.03",
    "mobile 10.20.30.40",
    "call id 123e4567-e89b-12d3-a456-426614174000",
    "offset +37096890360",
    "3 services registered 1700000000",
    "messages from partition 12 offset 4503 1200",
    "call 1700000000 failed",
    "build 17/123 1234 of it",
    "text (12) of 123456",
    "contact: 1700000000",
    "Contact Support at 12:30",
    "Call Stack at 4096",
    "+5775 -29137636 lines",
]


@pytest.mark.parametrize(("text", "value"), ALONE + NEAR_A_WORD)
def test_it_finds(text: str, value: str) -> None:
    assert found(text, finding("phone")) == [value]


@pytest.mark.parametrize("text", LEFT)
def test_it_leaves(text: str) -> None:
    assert found(text, finding("phone")) == []


@pytest.mark.parametrize(
    "value", ["030 901820", "01 42 68 53 00", "(91) 123 45 67", "9123 4567", "70 12 34 56"]
)
def test_national_forms_take_a_word(value: str) -> None:
    assert found(f"took {value} of it", finding("phone")) == []
    assert found(f"phone {value} of it", finding("phone")) == [value]


def test_a_word_in_another_line_is_not_near() -> None:
    assert found("phone\n030 901820", finding("phone")) == []


def test_numbers_side_by_side_are_all_found() -> None:
    text = "+442071838750 " * 40
    redacted = finding("phone").string(text, "", Report(), {})
    assert redacted == "[REDACTED_R0] " * 40
