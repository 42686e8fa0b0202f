"""Blanks as BuildKit (Go's unicode package) knows them; the closest word to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable

SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_FAR = 3


def closest(word: str, options: Iterable[str]) -> str:
    """The option that `word` may have been meant to be, fewer than three edits away; else empty."""
    best, least = "", _FAR
    for option in options:
        if abs(len(option) - len(word)) < least:
            edits = _distance(word.lower(), option.lower())
            if 0 < edits < least:
                best, least = option, edits
    return best


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """A hint for a mistyped word; empty when nothing is close."""
    option = closest(word, options)
    return f"did you mean '{option}'?" if option else ""


def _distance(left: str, right: str) -> int:
    """Letters put in, left out, changed, or swapped with their neighbour."""
    rows = [list(range(len(right) + 1))]
    for above, one in enumerate(left, 1):
        row = [above]
        for column, other in enumerate(right, 1):
            edits = min(rows[-1][column], row[-1]) + 1
            edits = min(edits, rows[-1][column - 1] + (one != other))
            if above > 1 and column > 1 and (one, left[above - 2]) == (right[column - 2], other):
                edits = min(edits, rows[-2][column - 2] + 1)
            row.append(edits)
        rows.append(row)
    return rows[-1][-1]
