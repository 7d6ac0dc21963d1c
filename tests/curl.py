"""The ``curl`` of the examples in documents, so that no machine needs one to run them.

It knows ``-s``, ``-i``, ``-X``, ``-H`` and ``-d``, also joined as in ``-si``, and sends the headers
that curl sends.
"""

import sys
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlsplit


def main(words: list[str]) -> None:
    url, method, data, shows_head = "", "", "", False
    headers = {"user-agent": "curl/8.5.0", "accept": "*/*"}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            url = word
            continue
        shows_head = shows_head or "i" in word
        if word[-1] in "XHd":
            value = next(rest)
        if word[-1] == "X":
            method = value
        elif word[-1] == "d":
            data = value
            headers.setdefault("content-type", "application/x-www-form-urlencoded")
        elif word[-1] == "H":
            name, _, value = value.partition(": ")
            headers[name.lower()] = value
    answer = ask(method or ("POST" if data else "GET"), url, headers, data.encode())
    if shows_head:
        fields = "".join(f"{name}: {value}\n" for name, value in answer.getheaders())
        sys.stdout.write(f"HTTP/1.1 {answer.status} {answer.reason}\n{fields}\n")
        sys.stdout.flush()
    sys.stdout.buffer.write(answer.read())


def ask(method: str, url: str, headers: dict[str, str], body: bytes) -> HTTPResponse:
    """Send a request with these headers, ``Host`` and ``Content-Length``, and no others."""
    parts = urlsplit(f"http://{url.removeprefix('http://')}")
    connection = HTTPConnection(parts.netloc, timeout=30)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection.putrequest(method, target, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    if body:
        connection.putheader("content-length", str(len(body)))
    connection.endheaders(body)
    return connection.getresponse()


if __name__ == "__main__":
    main(sys.argv[1:])
