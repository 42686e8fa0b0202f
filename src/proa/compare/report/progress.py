"""What a comparison is doing just now: a line that is redrawn on a terminal, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TextIO

from proa.compare.report.words import DASH
from proa.printable import clean

_REDRAW_SECONDS = 0.1
_TELL_FROM = 4  # steps done before what is left is guessed
_BAR = 16


class Progress:
    """Context manager around the work.

        with Progress(sys.stderr, live=sys.stderr.isatty()) as progress:
            progress.expect(48)                         # steps in all; 0: not known
            progress.begin("start, warm: container")    # what is done now
            progress.step()                             # that was one of the steps
            progress.note("no kvm here")                # a line that stays

    `expect` may be called again when more is known.  What is left is guessed from the steps done,
    and said only as `about`.  Every method is cheap enough to call a thousand times a second, but
    none between the two readings of a clock.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        live: bool,
        width: int = 80,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._live, self._width, self._clock = stream, live, width, clock
        self._began = clock()
        self._drawn = 0.0
        self._total = self._done = 0
        self._words = self._told = ""
        self._known_left: float | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._erase()

    def expect(self, steps: int) -> None:
        """How many steps there are in all, those done included."""
        self._total = max(steps, self._done)
        self._draw()

    def begin(self, words: str) -> None:
        """What is done from now on.  Without a terminal each new stage is one line."""
        self._words = clean(words)
        if not self._live and self._words != self._told:
            self._told = self._words
            self._write(f"proa: {self._words}{self._count()}\n")
        self._draw(now=True)

    def step(self, count: int = 1) -> None:
        """That many steps are done."""
        self._done += count
        self._total = max(self._total, self._done) if self._total else 0
        self._draw()

    def at(self, done: int, total: int, left_seconds: float | None) -> None:
        """Where it is, when the work itself knows; `left_seconds` replaces the guess."""
        self._done, self._total, self._known_left = done, total, left_seconds

    def note(self, words: str) -> None:
        """A line that stays above the progress."""
        self._erase()
        self._write(f"proa: {clean(words, 400)}\n")
        self._draw(now=True)

    def line(self) -> str:
        """What a terminal shows now."""
        if not self._total:
            head = clock_words(self._clock() - self._began)
        else:
            full = _BAR * self._done // self._total
            head = f"{'━' * full}{'╌' * (_BAR - full)} {self._done}/{self._total}"
        line = f"{head}  {self._words}"
        left = self._left()
        room = self._width - 1 - len(left)
        return line[:room].ljust(room) + left if left else line[: self._width - 1]

    def _left(self) -> str:
        """What is left, once it can be guessed."""
        if self._known_left is not None:
            if self._known_left < 1:
                return ""
            return f"  about {clock_words(self._known_left)} left"
        if not self._total or self._done < _TELL_FROM or self._done >= self._total:
            return ""
        passed = self._clock() - self._began
        return f"  about {clock_words(passed * (self._total - self._done) / self._done)} left"

    def _count(self) -> str:
        return f" ({self._done} of {self._total})" if self._total else ""

    def _draw(self, *, now: bool = False) -> None:
        if not self._live or not self._words:
            return
        moment = self._clock()
        if now or moment - self._drawn >= _REDRAW_SECONDS:
            self._drawn = moment
            self._write(f"\r{self.line()}\033[K")

    def _erase(self) -> None:
        if self._live:
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def clock_words(seconds: float) -> str:
    """`0:07`, `1:32`."""
    if not 0 <= seconds < 360_000:
        return DASH
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
