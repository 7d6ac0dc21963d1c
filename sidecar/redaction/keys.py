"""Names of attributes and fields: how a rule's ``keys`` are matched against them.

A name is compared in any common spelling: case, ``_``, ``-`` and blanks do not count, so the glob
``user_id`` stands for ``userId``, ``User-ID`` and ``USER_ID`` too. Dots do count. A glob is held
against the whole dotted name (``client.user.email``, ``payload.user.email``) and, when it has no
dot itself, against the last part of the name.
"""

import re
from fnmatch import translate

# Of a longer key only the end is known to rules.
MAX_KEY = 256

_IGNORED = re.compile(r"[_\-\s]+")


def fold(name: str) -> str:
    """Return the name in the one spelling that names are compared in."""
    return _IGNORED.sub("", name).lower()


class KeyMatcher:
    """Tells whether a dotted name matches any of some globs, and none of some others."""

    def __init__(self, globs: list[str], unless: list[str] | None = None) -> None:
        self._whole = _compile(globs)
        self._leaf = _compile([glob for glob in globs if "." not in glob])
        self._unless = KeyMatcher(unless) if unless else None

    def __call__(self, name: str) -> bool:
        """Tell whether the name matches."""
        if self._whole is _NOTHING or (self._unless is not None and self._unless(name)):
            return False
        folded = fold(name)
        return bool(
            self._whole.fullmatch(folded) or self._leaf.fullmatch(folded.rpartition(".")[2])
        )


_NOTHING = re.compile(r"(?!)")


def _compile(globs: list[str]) -> re.Pattern[str]:
    # Not RE2: translate() writes `(?s:…)\Z`, which RE2 does not know.
    return re.compile("|".join(translate(fold(glob)) for glob in globs)) if globs else _NOTHING
