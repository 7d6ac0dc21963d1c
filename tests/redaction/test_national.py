"""Numbers that a state gives to a person; all made up, with check digits that hold."""

import pytest

from tests.redaction.test_engine import found
from tests.redaction.test_personal import finding

ALONE = [
    "RSSMRA85T10A562S",
    "UXFO050331HCLESPX4",
    "11010519491231002X",
    "303306194403151433",
    "820.831.284-35",
    "52.08.06-268.21",
    "2 20 06 16 834 999 16",
    "756.8269.8332.18",
]
NAMED = [
    ("Sozialversicherungsnummer 2709030513", "2709030513"),
    ("TFN: 311 347 651", "311 347 651"),
    ("rijksregisternummer 52080626821", "52080626821"),
    ("ЕГН 7611135050", "7611135050"),
    ("cpf=83016567270", "83016567270"),
    ("social insurance number is 733-015-333", "733-015-333"),
    ("AHV 7561923017283", "7561923017283"),
    ("RUT: 8.670.437-4", "8.670.437-4"),
    ("rodné číslo 452412774", "452412774"),
    ("Steuer-ID 57 623 001 905", "57 623 001 905"),
    ("CPR-nummer 221026-5035", "221026-5035"),
    ("isikukood 49612267642", "49612267642"),
    ("DNI 33897949C", "33897949C"),
    ("numéro de sécurité sociale : 220061683499916", "220061683499916"),
    ("NHS number 040 345 6932", "040 345 6932"),
    ("National Insurance number KC 12 57 68 D", "KC 12 57 68 D"),
    ("amka: 06023333500", "06023333500"),
    ("OIB 11652657388", "11652657388"),
    ("PPS number: 7214730R", "7214730R"),
    ("Aadhaar 9364 5629 8427", "9364 5629 8427"),
    ("PAN ABCPE1234F", "ABCPE1234F"),
    ("kennitala 100523-1670", "100523-1670"),
    ("my number is 895446841316", "895446841316"),
    ("주민등록번호 391230-2515292", "391230-2515292"),
    ("personas kods 161175-19997", "161175-19997"),
    ("EMŠO 0101006500006", "0101006500006"),
    ("РНОКПП 2894321913", "2894321913"),
    ("BSN 707432649", "707432649"),
    ('got {"bsn": "707432649"}', "707432649"),
    ("fødselsnummer 300974 04530", "300974 04530"),
    ("PESEL 02482778789", "02482778789"),
    ("NIF 417641974", "417641974"),
    ("CNP 5481114148827", "5481114148827"),
    ("personnummer 110201-9013", "110201-9013"),
    ("NRIC S1234567D", "S1234567D"),
    ("TC kimlik no 65668049150", "65668049150"),
    ("ITIN 988-77-4798", "988-77-4798"),
    ("ID number 9508304718136", "9508304718136"),
    ("user_bsn=707432649", "707432649"),
    ("DNI / BSN 707432649", "707432649"),
    ("BSN 707432649 200", "707432649"),
    ("身分証 マイナンバー 895446841316", "895446841316"),
    ("bsn: 123456789, bsn: 707432649", "707432649"),
]
LEFT = [
    "RSSMRA85T10A562T",
    "UXFO050331HCLESPX5",
    "303306194403151435",
    "303306199913151433",
    "820.831.284-36",
    "756.8269.8332.19",
    "bsn 707432648",
    "bsn: 3 of 707432649",
    "subsnippet 707432649",
    "NHS 040 345 6931",
    "pan 12.5 and zoom",
    "sin(0.707432649)",
    "id number 1700000000000",
    "TFN\n311 347 651",
    "run_id=8670437-4",
    "nas 733015333",
    "DNI 707432649",
]


@pytest.mark.parametrize("value", ALONE)
def test_an_unmistakable_number_counts_wherever_it_stands(value: str) -> None:
    assert found(f"of {value}, and", finding("national-id")) == [value]


@pytest.mark.parametrize(("text", "value"), NAMED)
def test_a_plain_number_counts_behind_its_name(text: str, value: str) -> None:
    assert found(text, finding("national-id")) == [value]
    assert found(f"row {value} of", finding("national-id")) == []


@pytest.mark.parametrize("text", LEFT)
def test_other_numbers_stay(text: str) -> None:
    assert found(text, finding("national-id")) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("passport no. C01X00T47", "C01X00T47"),
        ("Passport number: 123456789", "123456789"),
        ("Reisepass C01X00T47", "C01X00T47"),
        ("passeport 12AB34567", "12AB34567"),
        ("passaporto YA1234567", "YA1234567"),
    ],
)
def test_passports_count_behind_their_name(text: str, value: str) -> None:
    assert found(text, finding("passport")) == [value]
    assert found(f"row {value} of", finding("passport")) == []


@pytest.mark.parametrize("text", ["passport photo 640x480", "passport.js 0.7.0", "passport 12345"])
def test_other_words_behind_passport_stay(text: str) -> None:
    assert found(text, finding("passport")) == []
