"""Docker's ways to name a moment: seconds, RFC 3339, or so long ago; and to write one."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from proa.errors import Invalid

NEVER = "0001-01-01T00:00:00Z"
_NUMBER = re.compile(r"\d{1,12}(\.\d{0,9})?")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_FRACTION = re.compile(r"(\.\d{6})\d+")


def seconds(text: str) -> float:
    """Seconds since the epoch; 0 for nothing given.  Raises Invalid."""
    if not text:
        return 0.0
    if _NUMBER.fullmatch(text):
        return float(text)
    if _DURATION.fullmatch(text):
        return time.time() - sum(float(n) * _UNITS[unit] for n, unit in _PART.findall(text))
    try:
        moment = datetime.fromisoformat(_FRACTION.sub(r"\1", text))
    except ValueError:
        raise Invalid(f"invalid time '{text}'", hint="use seconds, RFC 3339 or 10m") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def rfc3339(nanoseconds: int) -> str:
    """A moment as Docker writes it."""
    whole, rest = divmod(nanoseconds, 10**9)
    return time.strftime(f"%Y-%m-%dT%H:%M:%S.{rest:09d}Z", time.gmtime(whole))
