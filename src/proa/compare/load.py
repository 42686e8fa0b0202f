"""Load of the user's own: a command on this host that works on the instance and says a figure.

It gets PROA_TARGET (`address:port`) and PROA_FORM, and its figure is what `wrk` or `ab` call
requests per second, when it prints that, else the last number it prints.
"""

from __future__ import annotations

import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from proa.errors import HostError, Timeout
from proa.printable import clean

OUTPUT_MAXIMUM_BYTES = 1024 * 1024
UNITS = ("requests/s", "count")

_REQUESTS = re.compile(r"^Requests(?:/sec| per second):\s+([0-9.]+)", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3})?(?![\w.]*\w)")


@dataclass(frozen=True)
class Figure:
    """What the command said, and how long it took."""

    value: float
    unit: str
    seconds: float


def run(words: str, target: str, form: str, timeout_seconds: float = 600) -> Figure:
    """Run the command against a form to its end.

    Raises HostError when it fails or says no number, Timeout when it takes too long; it and what it
    started are ended then.
    """
    environment: Mapping[str, str] = {"PROA_TARGET": target, "PROA_FORM": form}
    begin = time.monotonic()
    with subprocess.Popen(
        ["/bin/sh", "-c", words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=timeout_seconds)
        except subprocess.TimeoutExpired:
            raise Timeout(f"'{words}' took more than {timeout_seconds:g} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    seconds = time.monotonic() - begin
    if process.returncode != 0:
        said = clean(err[-2000:].decode(errors="replace")) or "nothing"
        raise HostError(f"'{words}' ended with {process.returncode} and said '{said}'")
    value, unit = figure(out[-OUTPUT_MAXIMUM_BYTES:].decode(errors="replace"))
    if value is None:
        raise HostError(
            f"'{words}' printed no number",
            hint="its last number is the figure; print one, like requests per second",
        )
    return Figure(value, unit, seconds)


def figure(text: str) -> tuple[float | None, str]:
    """The figure in what a load generator printed, and its unit; None when there is none."""
    if found := _REQUESTS.findall(text):
        return _finite(found[-1]), UNITS[0]
    numbers = _NUMBER.findall(text)
    return (_finite(numbers[-1]) if numbers else None), UNITS[1]


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
