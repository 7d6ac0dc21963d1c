"""The built-in detectors, by the name that rules call them."""

from sidecar.redaction.detectors import card, crypto, iban, network, personal, phone, secrets
from sidecar.redaction.detectors.base import Detector

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for module in (personal, card, iban, phone, network, secrets, crypto)
    for detector in module.DETECTORS
}
