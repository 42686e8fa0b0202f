"""`.dockerignore`: which files of a context stay out, exactly as moby/patternmatcher decides.

The last pattern that says something about a path, or about a directory above it, wins; `!` takes
back.  A directory that is out can hold files that are in (`may_hold`); it then exists for them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from proa.errors import Invalid
from proa.image.build.globs import compiled
from proa.image.build.text import SPACES

MAXIMUM_BYTES = 1 << 20
_REMEMBERED = 4096
_WILD = "*[]?^\\"


@dataclass(frozen=True)
class _Pattern:
    text: str  # clean, without `!`
    exception: bool
    match: Callable[[str], bool]


def file_names(containerfile: str) -> tuple[str, str]:
    """Where to look for the patterns, best first; `containerfile` is its path in the context."""
    return f"{containerfile}.dockerignore", ".dockerignore"


class Ignore:
    """The patterns of one file (or of `COPY --exclude`); paths are relative, with slashes."""

    def __init__(self, data: bytes = b"", *, name: str = ".dockerignore") -> None:
        """Raises Invalid for a pattern that is malformed."""
        if len(data) > MAXIMUM_BYTES:
            raise Invalid(f"'{name}' has {len(data)} bytes", hint=f"{MAXIMUM_BYTES} are allowed")
        self._patterns: list[_Pattern] = []
        self._known: dict[str, tuple[bool, int]] = {"": (False, 0)}
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        for number, line in enumerate(text.split("\n"), 1):
            line = line.removesuffix("\r")
            if line.strip(SPACES) and not line.startswith("#"):
                self._add(_relative(line), f"line {number} of '{name}'")

    @classmethod
    def of(cls, patterns: Iterable[str], name: str = "--exclude") -> Ignore:
        """Patterns that come one by one.  Raises Invalid."""
        made = cls()
        for pattern in patterns:
            made._add(pattern, f"'{name}'")
        return made

    @property
    def exceptions(self) -> bool:
        """Whether some pattern takes back."""
        return any(pattern.exception for pattern in self._patterns)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, path: str) -> bool:
        """Whether the path stays out."""
        return self._judged(path.strip("/"))[0]

    def may_hold(self, directory: str) -> bool:
        """Whether something below a directory that stays out may be in."""
        inside = directory.strip("/") + "/"
        exceptions = [pattern.text for pattern in self._patterns if pattern.exception]
        plain = [text.removesuffix("**").removesuffix("/") for text in exceptions]
        if any(char in text for text in plain for char in _WILD):
            return True
        return any((text + "/").startswith(inside) for text in plain)

    def _judged(self, path: str) -> tuple[bool, int]:
        """Whether it is out, and a bit for each pattern that said so of it or above it."""
        above = path
        waiting: list[str] = []
        while above not in self._known:
            waiting.append(above)
            above = above.rpartition("/")[0]
        judged = self._known[above]
        if len(self._known) > _REMEMBERED:
            self._known = {"": (False, 0)}
        for one in reversed(waiting):
            judged = self._known[one] = self._asked(one, judged[1])
        return judged

    def _asked(self, path: str, inherited: int) -> tuple[bool, int]:
        out, said = False, 0
        for index, pattern in enumerate(self._patterns):
            bit = 1 << index
            # a pattern that cannot change the answer is not asked, and below that counts as a no
            if inherited & bit or (pattern.exception == out and pattern.match(path)):
                said |= bit
                out = not pattern.exception
        return out, said

    def _add(self, pattern: str, where: str) -> None:
        pattern = pattern.strip(SPACES)
        if not pattern:
            return
        pattern = _clean(pattern)
        exception = pattern.startswith("!")
        text = pattern[1:] if exception else pattern
        if not text:
            raise Invalid(f"'!' alone in {where}", hint="write what it takes back")
        match = compiled(text)
        if match is None:
            raise Invalid(f"bad pattern '{pattern}' in {where}", hint="is a bracket not closed?")
        self._patterns.append(_Pattern(text, exception, match))


def _relative(line: str) -> str:
    """The pattern of a line, without the slash that means the context's root."""
    pattern = line.strip(SPACES)
    exception = pattern.startswith("!")
    if exception:
        pattern = pattern[1:].strip(SPACES)
    if pattern:
        pattern = _clean(pattern)
        if len(pattern) > 1:
            pattern = pattern.removeprefix("/")
    return f"!{pattern}" if exception else pattern


def _clean(path: str) -> str:
    """Go's filepath.Clean."""
    return posixpath.normpath(re.sub("^//+", "/", path))
