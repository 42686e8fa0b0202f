"""Wildcards in COPY and ADD: the rules of Go's `filepath.Match`."""

from __future__ import annotations

import re

_SPECIAL = "*?["


def has_wildcard(name: str) -> bool:
    """Whether `name` is a pattern: an unescaped `*`, `?` or `[` is in it."""
    at = 0
    while at < len(name):
        if name[at] in _SPECIAL:
            return True
        at += 2 if name[at] == "\\" else 1
    return False


def split(path: str) -> tuple[str, str]:
    """The part of a clean path before the first name with a wildcard, and the rest."""
    names = path.strip("/").split("/")
    for count, name in enumerate(names):
        if has_wildcard(name):
            return "/".join(names[:count]), "/".join(names[count:])
    return "/".join(names), ""


def compiled(pattern: str) -> re.Pattern[str] | None:
    """The pattern as a regular expression for a whole path; None when it is malformed."""
    result, at = "", 0
    while at < len(pattern):
        letter, at = pattern[at], at + 1
        if letter == "*":
            result += "[^/]*"
        elif letter == "?":
            result += "[^/]"
        elif letter == "[":
            found = _class(pattern, at)
            if found is None:
                return None
            part, at = found
            result += part
        elif letter == "\\":
            if at == len(pattern):
                return None
            result += re.escape(pattern[at])
            at += 1
        else:
            result += re.escape(letter)
    return re.compile(result, re.DOTALL)


def _class(pattern: str, at: int) -> tuple[str, int] | None:
    """The class that begins behind `[`, and where the pattern goes on."""
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if pattern[at : at + 1] == "]" and ranges:
            return f"[{'^' if negated else ''}{''.join(ranges)}]", at + 1
        low = _letter(pattern, at)
        if low is None:
            return None
        first, at = low
        last = first
        if pattern[at : at + 1] == "-":
            high = _letter(pattern, at + 1)
            if high is None:
                return None
            last, at = high
        if first <= last:
            ranges.append(f"{re.escape(first)}-{re.escape(last)}")
        else:
            ranges.append(r"\ud800-\ud800" if not ranges else "")  # a range nothing is in


def _letter(pattern: str, at: int) -> tuple[str, int] | None:
    letter = pattern[at : at + 1]
    if letter in ("", "-", "]"):
        return None
    if letter == "\\":
        at, letter = at + 1, pattern[at + 1 : at + 2]
    return (letter, at + 1) if letter and at + 1 <= len(pattern) else None
