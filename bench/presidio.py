"""presidio-analyzer with its pattern recognizers and no language model, for comparison.

A script for an interpreter of its own: the package needs phonenumbers, which writes over
phonenumberslite. Reads a JSON object of name → list of texts from standard input; writes name →
``{"seconds", "spans"}``, where ``spans`` are those found in each text, and ``""`` → its version.
"""

import json
import sys
import time
from importlib.metadata import version
from typing import Any

import spacy  # type: ignore[import-not-found]
import tldextract  # type: ignore[import-not-found]
from presidio_analyzer import (  # type: ignore[import-not-found]
    AnalyzerEngine,
    RecognizerRegistry,
)
from presidio_analyzer.nlp_engine import SpacyNlpEngine  # type: ignore[import-not-found]

ASKED = ["EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "IP_ADDRESS", "PHONE_NUMBER"]


class NoModel(SpacyNlpEngine):  # type: ignore[misc]
    """Splits text into words, which the recognizers look for around a value, and no more."""

    def __init__(self) -> None:
        super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
        self.nlp = {"en": spacy.blank("en")}


def main() -> None:
    # The list of top-level domains that came with the package, so that nothing is downloaded.
    tldextract.tldextract.TLD_EXTRACTOR = tldextract.TLDExtract(suffix_list_urls=())
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    analyzer = AnalyzerEngine(nlp_engine=NoModel(), registry=registry, supported_languages=["en"])
    analyzer.analyze("warm up", language="en", entities=ASKED)
    results: dict[str, Any] = {"": version("presidio-analyzer")}
    for name, texts in json.load(sys.stdin).items():
        started = time.perf_counter()
        found = [analyzer.analyze(text, language="en", entities=ASKED) for text in texts]
        results[name] = {
            "seconds": time.perf_counter() - started,
            "spans": [[(span.start, span.end) for span in spans] for spans in found],
        }
    json.dump(results, sys.stdout)


main()
