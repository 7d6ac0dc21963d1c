"""The built-in detectors, by the name that rules call them."""

from sidecar.redaction.detectors import (
    card,
    crypto,
    iban,
    national,
    network,
    personal,
    phone,
    places,
    secrets,
)
from sidecar.redaction.detectors.base import Detector

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for module in (personal, card, iban, phone, national, places, network, secrets, crypto)
    for detector in module.DETECTORS
}
