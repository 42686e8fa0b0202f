"""What `proa-probe` writes, read with distrust: it comes out of an instance that may be hostile.

One flat JSON object a line: text, numbers, flags, and lists of numbers or text.  Everything is
bounded, so that an instance can neither fill this process's memory nor send what no reader expects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from proa.errors import Corrupt, Unsupported
from proa.printable import clean

OUTPUT_MAXIMUM_BYTES = 4 * 1024 * 1024
LINE_MAXIMUM_BYTES = 64 * 1024
LINES_MAXIMUM = 4096
KEYS_MAXIMUM = 64
LIST_MAXIMUM = 8192
_NUMBER_MAXIMUM = 2**64

Line = Mapping[str, Any]


def read(output: bytes) -> list[Line]:
    """The lines of a probe's standard output.  Raises Corrupt for anything else."""
    if len(output) > OUTPUT_MAXIMUM_BYTES:
        raise Corrupt(f"the probe wrote more than {OUTPUT_MAXIMUM_BYTES} bytes")
    lines = [line for line in output.split(b"\n") if line.strip()]
    if len(lines) > LINES_MAXIMUM:
        raise Corrupt(f"the probe wrote more than {LINES_MAXIMUM} lines")
    return [_object(line) for line in lines]


def number(line: Line, key: str, lowest: float = 0.0) -> float:
    """A finite number of a line, not below `lowest`.  Raises Corrupt when it is none."""
    value = line.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < lowest:
        raise Corrupt(f"the probe's '{key}' is '{clean(str(value), 40)}'")
    return float(value)


def text(line: Line, key: str) -> str:
    """A text of a line, safe to print; empty when there is none."""
    value = line.get(key)
    return clean(value, 2000) if isinstance(value, str) else ""


def numbers(line: Line, key: str) -> list[float]:
    """A list of finite numbers, none of them negative.  Raises Corrupt for anything else."""
    values = line.get(key)
    if not isinstance(values, list):
        raise Corrupt(f"the probe's '{key}' is no list")
    return [number({key: value}, key) for value in values]


def refused(line: Line) -> None:
    """Raise Unsupported for a line that says why there is no answer."""
    if text(line, "error"):
        cause = f" ({text(line, 'errno')})" if text(line, "errno") else ""
        raise Unsupported(f"{text(line, 'probe')}: {text(line, 'detail')}{cause}")


def _object(line: bytes) -> Line:
    if len(line) > LINE_MAXIMUM_BYTES:
        raise Corrupt(f"the probe wrote a line of more than {LINE_MAXIMUM_BYTES} bytes")
    try:
        value = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        shown = clean(line.decode(errors="replace"), 60)
        raise Corrupt(f"the probe wrote '{shown}', which is no JSON") from None
    if not isinstance(value, dict) or len(value) > KEYS_MAXIMUM or "probe" not in value:
        raise Corrupt("the probe wrote JSON that is no answer")
    if not all(_plain(scalar) for scalar in _scalars(value)):
        raise Corrupt("the probe wrote an answer of values no answer has")
    return value


def _scalars(value: dict[str, Any]) -> Iterator[Any]:
    for item in value.values():
        if isinstance(item, list) and len(item) <= LIST_MAXIMUM:
            yield from item
        else:
            yield item


def _plain(value: object) -> bool:
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= _NUMBER_MAXIMUM
    return value is None or isinstance(value, str)


def _refuse(name: str) -> object:
    raise ValueError(name)
