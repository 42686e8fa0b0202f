"""The user's terminal: raw mode that is always given back, its size, and detach keys."""

from __future__ import annotations

import os

from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


class RawMode:
    """Context manager: the terminal at `descriptor` passes every key through, unchanged."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._saved: list[Any] | None = None

    def __enter__(self) -> RawMode:
        import termios as t

        self._saved = t.tcgetattr(self._descriptor)
        iflag, oflag, cflag, lflag, ispeed, ospeed, control = t.tcgetattr(self._descriptor)
        iflag &= ~(t.IGNBRK | t.BRKINT | t.PARMRK | t.ISTRIP | t.INLCR | t.IGNCR | t.ICRNL | t.IXON)
        oflag &= ~t.OPOST
        cflag = cflag & ~(t.CSIZE | t.PARENB) | t.CS8
        lflag &= ~(t.ECHO | t.ECHONL | t.ICANON | t.ISIG | t.IEXTEN)
        control[t.VMIN], control[t.VTIME] = 1, 0
        raw = [iflag, oflag, cflag, lflag, ispeed, ospeed, control]
        t.tcsetattr(self._descriptor, t.TCSANOW, raw)
        return self

    def __exit__(self, *_: object) -> None:
        import termios

        if self._saved is not None:
            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._saved)
            self._saved = None


def size() -> tuple[int, int] | None:
    """Rows and columns of the terminal at standard output or input; None without one."""
    for descriptor in (1, 0):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if rows and columns:
            return rows, columns
    return None


def detach_keys(text: str) -> bytes:
    """The bytes of a sequence like `ctrl-p,ctrl-q` or `ctrl-x,d`.  Raises Invalid."""
    keys = bytearray()
    for name in text.split(","):
        if len(name) == 1 and name.isascii():
            keys += name.encode()
        elif name.startswith("ctrl-") and len(name) == 6 and 0x40 <= ord(name[5].upper()) <= 0x5F:
            keys.append(ord(name[5].upper()) & 0x1F)
        else:
            raise Invalid(
                f"'{name}' in '{text}' is not a detach key",
                hint="use a letter, or ctrl-a to ctrl-_",
            )
    return bytes(keys)


class KeyWatch:
    """Watches what is typed for the detach sequence.

    The keys are passed on all the same: the engine has the sequence too, and by it tells a detach
    from an end of input.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._recent = b""

    def complete(self, data: bytes) -> bool:
        """Whether the sequence ends within `data`, maybe begun before."""
        if not self._keys:
            return False
        seen = self._recent + data
        self._recent = seen[len(seen) - len(self._keys) + 1 :] if len(self._keys) > 1 else b""
        return self._keys in seen
