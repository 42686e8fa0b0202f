"""A small, strict HTTP/1.1 server over a listening stream socket: one thread per connection.

The application is one function from `Request` to an answer.
"""

from __future__ import annotations

import _thread
import contextlib
import logging
import select
import socket
import threading
import time
from collections.abc import Callable

from proa.api.answer import Answer, Reply, whole_head
from proa.api.http import Connection
from proa.api.message import Bounds
from proa.api.request import Request

LOG = logging.getLogger("proa.api")


class Busy:
    """Counts the requests at work, so that an ending server can wait for their answers."""

    def __init__(self) -> None:
        self._count = 0
        self._changed = threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            if self._count == 0:
                self._changed.notify_all()

    def wait_idle(self, timeout_seconds: float) -> bool:
        """Wait until no request is at work."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout_seconds)


class Server:
    """Accepts connections on `listener` until `stop`."""

    def __init__(
        self,
        listener: socket.socket,
        application: Callable[[Request], Answer],
        bounds: Bounds | None = None,
    ) -> None:
        self._listener = listener
        self._application = application
        self._bounds = bounds or Bounds()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._busy = Busy()
        self._slots = threading.BoundedSemaphore(self._bounds.connections)

    def run(self) -> None:
        """Serve until `stop` is called; connections still open then live on in their threads."""
        self._listener.setblocking(False)
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while True:
            ready = [descriptor for descriptor, _ in poll.poll()]
            if self._wake_reader.fileno() in ready:
                return
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:  # no descriptor left, say: wait for better times
                LOG.warning("cannot accept: %s", error)
                time.sleep(0.1)
                continue
            self._begin(sock)

    def stop(self) -> None:
        """Make `run` return; safe in a signal handler."""
        with contextlib.suppress(OSError):
            self._wake_writer.send(b"x")

    def finish(self, timeout_seconds: float) -> bool:
        """Let requests at work be answered; streams are cut.  False when some are not done."""
        return self._busy.wait_idle(timeout_seconds)

    def _begin(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        if not self._slots.acquire(blocking=False):
            with contextlib.suppress(OSError):
                busy = Reply(503, b'{"message":"too many connections"}\n')
                sock.send(whole_head(busy, False) + busy.body, socket.MSG_DONTWAIT)
            sock.close()
            return
        _thread.start_new_thread(self._serve, (sock,))  # a third of the cost of a Thread object

    def _serve(self, sock: socket.socket) -> None:
        try:
            Connection(sock, self._application, self._bounds, self._busy).serve()
        except Exception:
            LOG.exception("a connection failed")
        finally:
            self._slots.release()
