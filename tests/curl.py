"""The ``curl`` of the examples in documents, so that no machine needs one to run them.

It knows ``-s``, ``-H`` and ``-d``. What documents call ``localhost:8000`` and ``localhost:9090`` is
where `EXAMPLE_API` and `EXAMPLE_METRICS` in the environment say.
"""

import os
import sys
from urllib.request import Request, urlopen


def main(words: list[str]) -> None:
    url, data, headers = "", None, {}
    rest = iter(words)
    for word in rest:
        if word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            data = next(rest).encode()
        elif word != "-s":
            url = word
    for shown, variable in (
        ("localhost:8000", "EXAMPLE_API"),
        ("localhost:9090", "EXAMPLE_METRICS"),
    ):
        url = url.replace(shown, os.environ[variable])
    request = Request(f"http://{url.removeprefix('http://')}", data, headers)
    with urlopen(request, timeout=30) as answer:
        sys.stdout.buffer.write(answer.read())


if __name__ == "__main__":
    main(sys.argv[1:])
