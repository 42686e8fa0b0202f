"""A listening Unix socket whose connections are passed on to another one.

An ssh agent answers its own user and root only, and a process in a place is neither.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CHUNK = 1 << 16


@contextmanager
def relay(path: Path, target: Path) -> Iterator[None]:
    """Listen at `path` and pass each connection on to `target`, until the end."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:  # a socket's whole path may have 107 bytes only
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    listener.listen(16)
    thread = threading.Thread(target=_accept, args=(listener, target), name="relay", daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        listener.close()
        thread.join()


def _accept(listener: socket.socket, target: Path) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            far.connect(os.fspath(target))
        except OSError:
            client.close()
            far.close()
            continue
        threading.Thread(target=_serve, args=(client, far), name="relayed", daemon=True).start()


def _serve(client: socket.socket, far: socket.socket) -> None:
    """Both directions, until both have ended."""
    back = threading.Thread(target=_pump, args=(far, client), name="relayed-back", daemon=True)
    back.start()
    _pump(client, far)
    back.join()
    client.close()
    far.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
