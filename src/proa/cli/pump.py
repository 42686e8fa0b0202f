"""Moves bytes between a hijacked connection and our own standard streams.

One loop over poll(2).  Input to the instance waits in a bounded buffer and never blocks the loop,
so that a process which writes before it reads cannot lock both sides.
"""

from __future__ import annotations

import os
import select
from _socket import MSG_DONTWAIT, MSG_NOSIGNAL, SHUT_WR, socket

from proa.cli.terminal import KeyWatch
from proa.client.streams import STDERR, Demultiplexer, Plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

READ_BYTES = 64 * 1024
_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR | select.POLLNVAL


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, also to a descriptor that somebody made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Pump:
    """One attached stream.  `stdin` None sends no input; `keys` is the detach sequence."""

    def __init__(
        self,
        stream: tuple[socket, bytes],
        *,
        tty: bool,
        stdin: int | None = None,
        keys: bytes = b"",
    ) -> None:
        self._socket, self._early = stream
        self._cutter: Demultiplexer | Plain = Plain() if tty else Demultiplexer()
        self._stdin = stdin
        self._watcher = KeyWatch(keys)
        self._unsent = b""
        self._input_ended = False
        self.detached = False

    def run(self) -> bool:
        """Move bytes until the other side ends; False when the user detached."""
        self._show(self._early)
        if self._stdin is None:
            return self._only_output()
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        poll.register(self._stdin, select.POLLIN)
        while True:
            for descriptor, events in poll.poll():
                if descriptor == self._stdin:
                    self._take_input()
                else:
                    if events & select.POLLOUT:
                        self._send()
                    if events & _READABLE and not self._take_output():
                        return not self.detached
            if self.detached and not self._unsent:
                return False
            self._watch(poll)

    def _only_output(self) -> bool:
        while self._take_output():
            pass
        return True

    def _watch(self, poll: select.poll) -> None:
        """Look for input only when the last is sent, for room only when there is something."""
        wanted = select.POLLIN | (select.POLLOUT if self._unsent else 0)
        poll.modify(self._socket.fileno(), wanted)
        if self._stdin is None:
            return
        if self._input_ended or self.detached:
            poll.unregister(self._stdin)
            self._stdin = None
        elif self._unsent:
            # Not in the set at all: an ended pipe would be reported again and again.
            try:
                poll.unregister(self._stdin)
            except KeyError:
                return
        else:
            poll.register(self._stdin, select.POLLIN)

    def _take_output(self) -> bool:
        try:
            data = self._socket.recv(READ_BYTES)
        except ConnectionError:
            return False
        self._show(data)
        return bool(data)

    def _show(self, data: bytes) -> None:
        for stream, piece in self._cutter.feed(data):
            write_all(2 if stream == STDERR else 1, piece)

    def _take_input(self) -> None:
        assert self._stdin is not None
        try:
            data = os.read(self._stdin, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._input_ended = True
        else:
            self._unsent += data
            self.detached = self._watcher.complete(data)
        self._send()

    def _send(self) -> None:
        try:
            if self._unsent:
                sent = self._socket.send(self._unsent, MSG_DONTWAIT | MSG_NOSIGNAL)
                self._unsent = self._unsent[sent:]
            if self._input_ended and not self._unsent:
                self._socket.shutdown(SHUT_WR)
        except BlockingIOError:
            return
        except OSError:
            self._unsent = b""  # the process no longer reads; its output may still come


def with_terminal(tty: bool, stdin: bool, work: Callable[[], bool]) -> bool:
    """Do `work` with our terminal in raw mode when the instance has one and we pass our keys."""
    if not (tty and stdin and os.isatty(0)):
        return work()
    from proa.cli.terminal import RawMode

    with RawMode(0):
        return work()
