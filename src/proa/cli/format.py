"""How lists look: tables as Docker prints them, JSON lines, templates; sizes and ages in words."""

from __future__ import annotations

import time

from proa.client import fastjson
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

Row = dict[str, str]
ID_CHARACTERS = 12


class Column:
    """One column of a table: its heading and the row's field."""

    __slots__ = ("field", "heading")

    def __init__(self, heading: str, field: str) -> None:
        self.heading = heading
        self.field = field


def listing(rows: Sequence[Row], columns: Sequence[Column], format: str | None) -> str:
    """The rows in the format asked for: None or `table`, `json`, or a template."""
    if format in (None, "", "table"):
        return table([c.heading for c in columns], [[r[c.field] for c in columns] for r in rows])
    if format == "json":
        return "".join(f"{fastjson.dumps(row)}\n" for row in rows)
    from proa.cli.template import Template

    text = str(format)
    if not text.startswith("table "):
        template = Template(text)
        return "".join(f"{template.render(row)}\n" for row in rows)
    template = Template(text.removeprefix("table ").replace("\\t", "\t"))
    headings = {column.field: column.heading for column in columns}
    cells = [template.render(row).split("\t") for row in rows]
    heading = template.render({**{f: f.upper() for r in rows for f in r}, **headings})
    return table(heading.split("\t"), cells)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, three spaces apart."""
    lines = [list(headings), *map(list, rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(headings))]
    return "".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in lines
    )


def short_id(identity: str) -> str:
    """The twelve characters people read."""
    return identity.removeprefix("sha256:")[:ID_CHARACTERS]


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters, the last one an ellipsis when something is missing."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def decimal_size(size_bytes: float) -> str:
    """`124MB`: thousands, three digits."""
    return _size(size_bytes, 1000, ("B", "kB", "MB", "GB", "TB", "PB"), 3)


def binary_size(size_bytes: float) -> str:
    """`1.25GiB`: powers of 1024, four digits."""
    return _size(size_bytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"), 4)


def _size(size: float, base: int, units: tuple[str, ...], digits: int) -> str:
    unit = 0
    while size >= base and unit < len(units) - 1:
        size /= base
        unit += 1
    text = f"{size:.{digits}g}"
    return f"{int(size) if 'e' in text else text}{units[unit]}"


# Below so many seconds: the words, and the unit that is counted (None: no number).
_AGES = (
    (1, "Less than a second", None), (2, "1 second", None), (60, "seconds", 1),
    (120, "About a minute", None), (3600, "minutes", 60), (5400, "About an hour", None),
    (172800, "hours", 3600), (1209600, "days", 86400), (5184000, "weeks", 604800),
    (63072000, "months", 2592000), (float("inf"), "years", 31536000),
)  # fmt: skip


def age(seconds: float) -> str:
    """`3 minutes`, `About an hour`: as Docker words it."""
    for below, words, unit in _AGES:
        if seconds < below:
            return f"{int(seconds / unit)} {words}" if unit else words
    raise AssertionError("unreachable")


def ago(epoch_seconds: float) -> str:
    """`3 minutes ago`."""
    return f"{age(time.time() - epoch_seconds)} ago"


def when(epoch_seconds: float) -> str:
    """`2026-11-23 06:21:31 +0000 UTC`, in the local zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(epoch_seconds))


_DURATION_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def moment(text: str) -> str:
    """Epoch seconds, as the API wants them, of `10m` ago, RFC 3339, or epoch seconds.

    Raises Invalid.
    """
    if text.replace(".", "", 1).isdigit():
        return text
    seconds = _duration(text)
    if seconds is not None:
        return f"{time.time() - seconds:.9f}"
    from datetime import datetime

    try:
        return f"{datetime.fromisoformat(text).timestamp():.9f}"
    except ValueError:
        raise Invalid(
            f"'{text}' is not a time", hint="like 10m, 2026-11-23T06:21:31Z or 1795415000"
        ) from None


def _duration(text: str) -> float | None:
    """Seconds of `1h30m`; None when it is none."""
    total, number, position = 0.0, "", 0
    while position < len(text):
        if text[position].isdigit() or text[position] == ".":
            number += text[position]
            position += 1
            continue
        unit = "ms" if text.startswith("ms", position) else text[position]
        if unit not in _DURATION_SECONDS or not number.replace(".", "", 1).isdigit():
            return None
        total += float(number) * _DURATION_SECONDS[unit]
        number, position = "", position + len(unit)
    return None if number or not text else total
