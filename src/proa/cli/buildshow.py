"""Progress of a build: lines drawn again and again on a terminal, numbered lines on a pipe."""

from __future__ import annotations

import sys
import time

from proa.cli.format import decimal_size
from proa.printable import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self, TextIO

MODES = ("auto", "plain", "tty", "quiet", "rawjson")
WINDOW = 6  # lines of a running step's output
_INTERVAL_SECONDS = 0.1
_ENDS = {"done": "DONE", "cached": "CACHED", "cancelled": "CANCELED", "failed": "ERROR"}
_KEPT_BYTES = 64 << 10


class _Line:
    """One vertex as it is shown."""

    __slots__ = ("heard", "moved", "name", "rest", "seconds", "since", "state", "window")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "started"
        self.since = time.monotonic()
        self.seconds = 0.0
        self.heard = False
        self.rest = {1: b"", 2: b""}  # of output, not a whole line yet
        self.window: list[str] = []
        self.moved: dict[str, str] = {}

    def took(self) -> float:
        return self.seconds if self.state != "started" else time.monotonic() - self.since


class Show:
    """Shows nothing: what the other ways have in common; a context manager."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lines: dict[int, _Line] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def event(self, event: dict[str, Any]) -> None:
        """Something happened."""
        if "vertex" in event:
            vertex = event["vertex"]
            line = self._lines.setdefault(vertex["number"], _Line(vertex["name"]))
            if vertex["state"] == "started":
                self.begins(vertex["number"], line)
            else:
                self._leftovers(vertex["number"], line)
                line.state, line.seconds = vertex["state"], vertex["seconds"]
                self.ends(vertex["number"], line, vertex["error"])
        elif "output" in event:
            self._output(event["output"])
        elif "transfer" in event:
            moved = event["transfer"]
            if moved["number"] in self._lines:
                self.moves(moved["number"], self._lines[moved["number"]], moved)

    def _output(self, output: dict[str, Any]) -> None:
        from binascii import a2b_base64

        number, stream = output["number"], output["stream"]
        line = self._lines.get(number)
        if line is None:
            return
        line.heard = True
        *whole, rest = (line.rest.get(stream, b"") + a2b_base64(output["data"])).split(b"\n")
        if len(rest) > _KEPT_BYTES:
            whole, rest = [*whole, rest], b""
        line.rest[stream] = rest
        for text in whole:
            self.says(number, line, _plain(text))

    def failed_aloud(self) -> bool:
        """Whether what failed had written something, which was shown."""
        return any(line.heard for line in self._lines.values() if line.state == "failed")

    def _leftovers(self, number: int, line: _Line) -> None:
        for stream, rest in line.rest.items():
            if rest:
                line.rest[stream] = b""
                self.says(number, line, _plain(rest))

    def begins(self, number: int, line: _Line) -> None:
        """A vertex begins."""

    def says(self, number: int, line: _Line, text: str) -> None:
        """A line of output."""

    def moves(self, number: int, line: _Line, moved: dict[str, Any]) -> None:
        """Bytes moved."""

    def ends(self, number: int, line: _Line, error: str) -> None:
        """A vertex has ended."""

    def finish(self) -> None:
        """Nothing more will come."""


def _plain(text: bytes) -> str:
    """A line of output without what would move the cursor: the last of what `\\r` overwrote."""
    shown = text.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    return visible(shown)


class Plain(Show):
    """`#3 [2/5] RUN make`, `#3 0.12 text`, `#3 DONE 0.3s`; one block at a time is not promised."""

    def _say(self, number: int, text: str) -> None:
        self._out.write(f"#{number} {text}\n")
        self._out.flush()

    def begins(self, number: int, line: _Line) -> None:
        """Its name."""
        self._say(number, line.name.replace("\n", " "))

    def says(self, number: int, line: _Line, text: str) -> None:
        """The line, with the seconds since the vertex began."""
        self._say(number, f"{line.took():.2f} {text}")

    def moves(self, number: int, line: _Line, moved: dict[str, Any]) -> None:
        """Only that something is complete."""
        if moved["total"] and moved["current"] == moved["total"]:
            self._say(number, f"{moved['id']} {decimal_size(moved['total'])} done")

    def ends(self, number: int, line: _Line, error: str) -> None:
        """How, and after which time."""
        text = _ENDS.get(line.state, line.state)
        if line.state == "failed":
            text += f": {error}"
        elif line.state == "done":
            text += f" {line.seconds:.1f}s"
        self._say(number, text)


class Live(Show):
    """All vertices, one line each, and the last output of those that run; drawn in place."""

    def __init__(self, out: TextIO) -> None:
        super().__init__(out)
        from threading import Event, Lock, Thread

        self._started = time.monotonic()
        self._drawn = 0
        self._lock = Lock()
        self._ended = Event()
        self._thread = Thread(target=self._tick, daemon=True)
        self._thread.start()

    def event(self, event: dict[str, Any]) -> None:
        """Something happened: it is seen at the next drawing."""
        with self._lock:
            super().event(event)

    def says(self, number: int, line: _Line, text: str) -> None:
        """The window moves on."""
        line.window = [*line.window[1 - WINDOW :], text]

    def moves(self, number: int, line: _Line, moved: dict[str, Any]) -> None:
        """How far it is."""
        total = f" / {decimal_size(moved['total'])}" if moved["total"] else ""
        line.moved[moved["id"]] = f"{moved['id']} {decimal_size(moved['current'])}{total}"

    def ends(self, number: int, line: _Line, error: str) -> None:
        """Its output goes; a failed one keeps it."""
        line.moved.clear()
        if line.state != "failed":
            line.window = []

    def finish(self) -> None:
        """The last drawing stays."""
        self._ended.set()
        self._thread.join()
        self._draw()

    def _tick(self) -> None:
        while not self._ended.wait(_INTERVAL_SECONDS):
            self._draw()

    def _draw(self) -> None:
        from proa.cli.terminal import size

        rows, columns = size() or (24, 80)
        with self._lock:
            shown = self._text(columns)[-(rows - 1) :]
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._drawn = max(self._drawn, len(shown))
        shown += [""] * (self._drawn - len(shown))
        self._out.write(up + "".join(f"\r\x1b[K{line}\n" for line in shown))
        self._out.flush()

    def _text(self, columns: int) -> list[str]:
        over = sum(line.state != "started" for line in self._lines.values())
        took = time.monotonic() - self._started
        shown = [f"[+] Building {took:.1f}s ({over}/{len(self._lines)})"]
        for _, line in sorted(self._lines.items()):
            mark = {"cached": "CACHED ", "failed": "ERROR ", "cancelled": "CANCELED "}
            text = f" => {mark.get(line.state, '')}{line.name}".replace("\n", " ")
            seconds = f"{line.took():.1f}s"
            width = columns - len(seconds) - 2
            shown.append(f"{text[:width]:<{width}} {seconds}")
            more = [*line.moved.values(), *line.window]
            shown += [f" => => {one}"[: columns - 1].expandtabs(4)[: columns - 1] for one in more]
        return shown


class Raw(Show):
    """Every event as it came."""

    def event(self, event: dict[str, Any]) -> None:
        """One line of JSON."""
        from proa.client import fastjson

        self._out.write(fastjson.dumps(event) + "\n")
        self._out.flush()


def show(mode: str) -> Show:
    """The way to show a build on standard error."""
    if mode == "auto":
        mode = "tty" if sys.stderr.isatty() else "plain"
    kinds = {"plain": Plain, "tty": Live, "quiet": Show, "rawjson": Raw}
    return kinds[mode](sys.stderr)
