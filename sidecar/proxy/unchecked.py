"""Why something must not pass a redacting route."""


class UncheckedError(Exception):
    """It could not be looked into, so it does not leave; the message is for its sender."""


class UnknownTypeError(Exception):
    """Nobody can look into a body of this type: what becomes of it, the route says."""
