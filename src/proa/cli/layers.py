"""Progress of layers: one live line each on a terminal, a line per change anywhere else."""

from __future__ import annotations

import sys
import time

from proa.cli.format import decimal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, TextIO

INTERVAL_SECONDS = 0.05
BAR = 24
_UNREMARKABLE = frozenset({"Waiting", "Preparing", "Pulling fs layer", "Verifying Checksum"})


class Display:
    """Shows messages of Docker's progress stream; a context manager.

    Lines of layers are kept together below what was said before them, and drawn again in place.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._live = self._out.isatty()
        self._lines: dict[str, str] = {}
        self._drawn = 0
        self._last = 0.0
        self._stale = False

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def show(self, message: dict[str, Any]) -> None:
        """One message of the stream."""
        status, identity = str(message.get("status") or ""), str(message.get("id") or "")
        if not status:
            return
        if identity and "progressDetail" in message:
            self._layer(identity, status, message.get("progressDetail") or {})
        else:
            self._say(f"{identity}: {status}" if identity else status)

    def _layer(self, identity: str, status: str, detail: dict[str, Any]) -> None:
        if not self._live:
            if not detail and status not in _UNREMARKABLE:
                self._say(f"{identity}: {status}")
            return
        new = identity not in self._lines
        self._lines[identity] = f"{identity}: {status}{_bar(detail)}"
        self._stale = True
        if new or time.monotonic() - self._last > INTERVAL_SECONDS:
            self._draw()

    def _say(self, line: str) -> None:
        """A line that stays, above the layers when they are under way."""
        self.flush()
        self._lines, self._drawn = {}, 0
        self._out.write(f"{line}\n")
        self._out.flush()

    def flush(self) -> None:
        """Draw what is not drawn yet."""
        if self._stale:
            self._draw()

    def _draw(self) -> None:
        from proa.cli.terminal import size

        rows, columns = size() or (24, 80)
        lines = [line[: columns - 1] for line in self._lines.values()][-(rows - 1) :]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write(up + "".join(f"\r\x1b[K{line}\n" for line in lines))
        self._out.flush()
        self._drawn, self._stale, self._last = len(lines), False, time.monotonic()


def _bar(detail: dict[str, Any]) -> str:
    current, total = detail.get("current"), detail.get("total")
    if not isinstance(current, int) or not isinstance(total, int) or total <= 0:
        return ""
    done = min(BAR, BAR * current // total)
    return f" [{'=' * done:<{BAR}}] {decimal_size(current)}/{decimal_size(total)}"


def follow(messages: Iterable[dict[str, Any]], quiet: bool = False) -> list[dict[str, Any]]:
    """Show a stream to its end; the `aux` values it carried.  Raises the error it may carry."""
    from proa.client.progress import checked

    values = []
    with Display() as display:
        for message in checked(messages):
            if isinstance(message.get("aux"), dict):
                values.append(message["aux"])
            if not quiet:
                display.show(message)
    return values
