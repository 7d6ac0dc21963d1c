"""The engine and presidio-analyzer (`bench.presidio`) on the same text, in the same run."""

import json
import os
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from bench.engine import MB, redact_all, shipped
from bench.logtext import clean_text, dirty_text
from bench.quality import recall_rows
from bench.table import Row, Section, progress, seconds
from tests.corpora import labelled_texts, score

# A few seconds' worth for it.
SLICE = MB // 5
# The interpreter that has it; `make bench` makes this one.
_DEFAULT = Path(__file__).parents[1] / ".venv/presidio/bin/python"
PYTHON = Path(os.environ.get("PRESIDIO_PYTHON", _DEFAULT))


def rows() -> list[Row]:
    if not PYTHON.exists():
        return [Row("presidio-analyzer", "not installed")]
    labelled = labelled_texts()
    texts = {
        "clean text": clean_text(SLICE).splitlines(),
        "a finding in every tenth line": dirty_text(SLICE).splitlines(),
        "corpus": [text.text for text in labelled],
    }
    progress("presidio-analyzer")
    results = _analyzed(texts)
    rows, ours = [], shipped()
    for kind in ("clean text", "a finding in every tenth line"):
        lines = texts[kind]
        size = sum(len(line.encode()) for line in lines) / MB
        theirs = size / results[kind]["seconds"]
        rate = size / min(seconds(partial(redact_all, ours, lines)) for _ in range(5))
        rows += [
            Row(f"presidio-analyzer {results['']}, {kind}", f"{theirs:.3f} MB/s"),
            Row(f"the engine, {kind}", f"{rate:.1f} MB/s: {rate / theirs:,.0f} times"),
        ]
    spans = dict(zip(texts["corpus"], results["corpus"]["spans"], strict=True))
    return [*rows, *recall_rows(score(labelled, spans.__getitem__), by="presidio-analyzer")]


def _analyzed(texts: dict[str, list[str]]) -> dict[str, Any]:
    # Isolated (-I): the modules of this folder must not stand for packages of the same name.
    done = subprocess.run(
        [PYTHON, "-I", Path(__file__).with_name("presidio.py")],
        input=json.dumps(texts).encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return dict(json.loads(done.stdout))


SECTION = Section(
    "Beside presidio-analyzer",
    f"Its pattern recognizers of the six types, no language model; {SLICE / MB} MB of the same log "
    "text line by line, and the same corpus. The engine looks for all that its rules name.",
    rows,
)
