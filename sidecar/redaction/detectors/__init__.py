"""The built-in detectors, by the name that rules call them."""

from sidecar.redaction.detectors import crypto, network, personal, secrets
from sidecar.redaction.detectors.base import Detector

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for module in (personal, network, secrets, crypto)
    for detector in module.DETECTORS
}
