"""`--chmod`: octal or symbolic, as chmod(1) has it with no umask."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable

from proa.errors import Invalid

Change = Callable[[int], int]  # of a whole st_mode; gives the permission bits

_OCTAL = re.compile(r"[0-7]+")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)")
_ACTION = re.compile(r"([-+=])([rwxXst]*(?![ugo])|[ugo])")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o0007, "a": 0o6777}
_PERMISSIONS = {"r": 0o444, "w": 0o222, "x": 0o111, "s": 0o6000, "t": 0o1000}
_SHIFTS = {"u": 6, "g": 3, "o": 0}


def parse(text: str) -> Change:
    """What `--chmod=text` does to a mode.  Raises Invalid."""
    if _OCTAL.fullmatch(text):
        return _octal(text)
    if text[:1].isdigit():
        raise _invalid(text)
    matches = [_CLAUSE.fullmatch(clause) for clause in text.split(",")]
    if None in matches:
        raise _invalid(text)
    steps = [
        (match[1], action[0], action[1])
        for match in matches
        if match is not None
        for action in _ACTION.findall(match[2])
    ]

    def change(mode: int) -> int:
        bits = stat.S_IMODE(mode)
        executable = bool(mode & 0o111) or stat.S_ISDIR(mode)
        for who, sign, what in steps:
            bits = _apply(bits, (who, sign, what), executable)
        return bits

    return change


def octal(text: str) -> int | None:
    """The mode itself when `text` is octal: directories made on the way get it as well."""
    return int(text, 8) if _OCTAL.fullmatch(text) else None


def _octal(text: str) -> Change:
    value = int(text, 8) if len(text) < 12 else 1 << 20
    if value > 0o7777:
        raise _invalid(text)
    return lambda mode: value


def _apply(bits: int, step: tuple[str, str, str], executable: bool) -> int:
    who, sign, what = step
    mask = 0
    for letter in who or "a":
        mask |= _WHO[letter]
    if what in _SHIFTS:
        copied = bits >> _SHIFTS[what] & 7
        wanted = copied << 6 | copied << 3 | copied
    else:
        wanted = 0
        for letter in what.replace("X", "x" if executable else ""):
            wanted |= _PERMISSIONS[letter]
    if "t" in what and who != "o":
        mask |= 0o1000
    if sign == "=":
        return bits & ~(mask & 0o7777) | wanted & mask
    return bits | wanted & mask if sign == "+" else bits & ~(wanted & mask)


def _invalid(text: str) -> Invalid:
    return Invalid(
        f"invalid mode '{text[:60]}'",
        hint="write octal digits up to 7777, or letters as chmod takes them: 'u=rwX,go=rX'",
    )
