"""Processors of this host, and lists of their numbers."""

from __future__ import annotations

import os
import re
from pathlib import Path

from proa.errors import Invalid

NUMBERS_MAXIMUM = 4096
ONLINE = Path("/sys/devices/system/cpu/online")
_LIST = re.compile(r"[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*")


def numbers(text: str, what: str = "list") -> frozenset[int]:
    """The numbers of a list like `0-2,5`.  Raises Invalid, naming `what` it is for."""
    if not text:
        return frozenset()
    found: set[int] = set()
    if _LIST.fullmatch(text) and len(text) < NUMBERS_MAXIMUM:
        for part in text.split(","):
            first, _, last = part.partition("-")
            if int(last or first) < NUMBERS_MAXIMUM:
                found.update(range(int(first), int(last or first) + 1))
    if not found:
        raise Invalid(f"invalid value '{text}' for '{what}'", hint="like 0-2,5")
    return frozenset(found)


def online() -> str:
    """The processors that run, as a list like `0-3`."""
    try:
        return ONLINE.read_text(encoding="ascii").strip()
    except OSError:
        return f"0-{(os.cpu_count() or 1) - 1}"
