"""The built-in detectors, by the name that rules call them."""

from sidecar.redaction.detectors import network, personal, secrets
from sidecar.redaction.detectors.base import Detector

DETECTORS: dict[str, Detector] = {
    detector.name: detector
    for module in (personal, network, secrets)
    for detector in module.DETECTORS
}
