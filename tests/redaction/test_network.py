"""Addresses of machines, and credentials in URLs."""

import pytest

from tests.redaction.test_engine import found
from tests.redaction.test_personal import finding

FOUND = {
    "ipv4": [
        ("203.0.113.77:80", "203.0.113.77"),
        ("from 10.218.6.131.", "10.218.6.131"),
        ("version 1.2.3.4 from 203.0.113.77", "203.0.113.77"),
        ("10.42.3.0/24,203.0.113.77", "203.0.113.77"),
        ("255.255.255.0 203.0.113.77", "203.0.113.77"),
        ("256.1.1.1 203.0.113.77", "203.0.113.77"),
        ("app_1.2.3.4.deb 203.0.113.77", "203.0.113.77"),
        ("got app_1.2.3.4.deb from 203.0.113.77.", "203.0.113.77"),
        ("ip.src==203.0.113.77", "203.0.113.77"),
        ("user@203.0.113.77", "203.0.113.77"),
        ("subversion 203.0.113.77", "203.0.113.77"),
    ],
    "ipv6": [
        ("[2001:db8::8a2e:370:7334]:80", "2001:db8::8a2e:370:7334"),
        (
            "d80:e4b5:79da:6cf6:71f3:51f7:9161:c319",
            "d80:e4b5:79da:6cf6:71f3:51f7:9161:c319",
        ),
        ("::ffff:203.0.113.77", "::ffff:203.0.113.77"),
        ("64:ff9b::203.0.113.77", "64:ff9b::203.0.113.77"),
        ("2001:db8::8a2e:370:7334:51766", "2001:db8::8a2e:370:7334"),
        ("ratelimit:2001:db8::1:29924317", "2001:db8::1"),
        ("2001:db8::1:client", "2001:db8::1"),
        ("peer:2001:db8:0:0:0:0:0:1", "2001:db8:0:0:0:0:0:1"),
        ("node:2001:db8:0:0:0:0:0:1", "2001:db8:0:0:0:0:0:1"),
        ("fe80::1%eth0", "fe80::1"),
        ("2001:db8::1/64", "2001:db8::1"),
        ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7::"),
    ],
    "mac": [
        ("3c:22:FB:9a:10:7e", "3c:22:FB:9a:10:7e"),
        ("3C-22-fb-9a-10-7e", "3C-22-fb-9a-10-7e"),
    ],
    "url-credentials": [
        ("https://svc-user:Pa55w0rd-Zq@h.example.com/x", "svc-user:Pa55w0rd-Zq@"),
        ("redis://:s3cret@cache:6379/0", ":s3cret@"),
        ("https://u:p/w#x@host/", "u:p/w#x@"),
        ("postgresql+asyncpg://u:a/b?c@db:5432/app", "u:a/b?c@"),
        ("https://u:p@ss@host/x", "u:p@ss@"),
        ("https://u:p@host/a@b.example.com", "u:p@"),
    ],
}

LEFT = {
    "ipv4": [
        *("1.2.3", "256.1.1.1", "01.2.3.4", "v1.2.3.4", "1.2.3.4.5", 'version="1.2.3.4"'),
        *('"appVersion": "1.2.3.4"', "the version is 1.2.3.4", "firmware 1.2.3.4", "tag: 1.2.3.4"),
        *("package-1.2.3.4.tar.gz", "app_1.2.3.4_amd64.deb", "foo>=1.2.3.4", "OID 1.3.6.1"),
        *("RFC 7231 section 6.5.1.2", "kernel 5.15.0.91"),
    ],
    "ipv6": [
        "21:07:26",
        "std::string",
        "a::b",
        "12::34",
        "12:34",
        "http://x:80",
        ":::8080",
        "fe80::/10",
        "1:2:3:4:5:6:7:8:9:10",
        "1:2:3:4:5:6:7:",
    ],
    "mac": ["3c:22:fb:9a:10", "3c:22:fb:9a:10:7e:11", "3c:22-fb:9a-10:7e"],
    "url-credentials": [
        "http://h:80/a@b",
        "http://h:80/path/@user",
        "mailto:a@b",
        "docker://repository:latest/a@sha256:0a1b",
        "https://h/path:x/@user",
    ],
}


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
