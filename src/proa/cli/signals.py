"""Signals that reach the command line are meant for the instance: pass them on."""

from __future__ import annotations

from proa.cli import terminal
from proa.client import address
from proa.client.connection import Connection, target
from proa.errors import ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from types import FrameType
else:
    import _signal as signal  # `signal` itself costs an import of `enum`

PROXIED = ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM")


class Proxy:
    """Hands signals to an instance; those that come before it runs are kept until it does.

    A handler runs in the main thread between two instructions, also while that waits, so it talks
    over a connection of its own.
    """

    def __init__(self) -> None:
        self._path = ""
        self._early: list[str] = []
        self._numbers = {getattr(signal, f"SIG{name}"): name for name in PROXIED}

    def install(self) -> None:
        """Catch the signals from now on."""
        for number in self._numbers:
            signal.signal(number, self._caught)

    def started(self, instance: str) -> None:
        """The instance runs: from now on signals go there."""
        self._path = f"/containers/{instance}/kill"
        early, self._early = self._early, []
        for name in early:
            _quietly(self._path, {"signal": name})

    def _caught(self, number: int, _: FrameType | None) -> None:
        name = self._numbers[number]
        if self._path:
            _quietly(self._path, {"signal": name})
        else:
            self._early.append(name)


def follow_size(path: str) -> None:
    """Tell `path` (an instance's or exec's resize) the terminal's size whenever it changes."""
    signal.signal(signal.SIGWINCH, lambda *_: send_size(path))


def send_size(path: str) -> None:
    """Tell `path` the terminal's size now."""
    now = terminal.size()
    if now is not None:
        _quietly(path, {"h": now[0], "w": now[1]})


def _quietly(path: str, query: dict[str, object]) -> None:
    """A process that is gone needs neither a signal nor a size."""
    try:
        with Connection(address.socket_path()) as connection:
            connection.request("POST", target(path, query)).read()
    except (ProaError, OSError):
        return
