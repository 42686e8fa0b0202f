"""When something inside is ready: its port is open, it gives a good reply, its owner's test passes.

Each waits until it is so and gives the moment as `time.monotonic_ns()`, which can be set against
the milestones of a start.  It is asked from this host.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping

from proa.errors import Timeout
from proa.printable import clean

RETRY_SECONDS = 0.001  # after a refusal: the resolution of what is found
_ATTEMPT_SECONDS = 0.01  # a connection that is not refused gets another beside it
_ATTEMPTS = 32
_REPLY_SECONDS = 5.0  # until it is asked again, on another connection
_REPLY_BYTES = 64 * 1024
_HEAD_WORDS = 2


def port_open(address: str, port: int, timeout_seconds: float) -> int:
    """Wait until a connection is taken.  Raises Timeout.

    While nothing answers at all (no machine there yet), a packet may be lost and only be sent again
    after a second: so a new attempt begins every 10 ms, and the first that succeeds counts.
    """
    connected, moment = _connect(address, port, time.monotonic() + timeout_seconds)
    connected.close()
    return moment


def first_reply(address: str, port: int, timeout_seconds: float) -> int:
    """Wait for a good reply: HTTP with a status below 400.  Raises Timeout, saying the last."""
    end = time.monotonic() + timeout_seconds
    request = f"GET / HTTP/1.1\r\nHost: {address}:{port}\r\nConnection: close\r\n\r\n"
    last = "nothing"
    while True:
        try:
            connected, _ = _connect(address, port, end)
        except Timeout:
            break
        with connected:
            last = _status(connected, request.encode(), min(end, time.monotonic() + _REPLY_SECONDS))
            moment = time.monotonic_ns()
        if last.isdigit() and int(last) < 400:
            return moment
        if time.monotonic() + RETRY_SECONDS > end:
            break
        time.sleep(RETRY_SECONDS)
    raise Timeout(f"'{address}:{port}' gave no good reply in {timeout_seconds:g} s, but '{last}'")


def command(words: str, timeout_seconds: float, environment: Mapping[str, str]) -> int:
    """Run the user's own test (a shell's line, on this host) until it succeeds.

    `environment` is added to ours: PROA_TARGET is `address:port`.  Raises Timeout.
    """
    end = time.monotonic() + timeout_seconds
    said = "nothing"
    while (left := end - time.monotonic()) > 0:
        try:
            done = subprocess.run(
                ["/bin/sh", "-c", words],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=left,
                check=False,
            )
        except subprocess.TimeoutExpired:
            break
        moment = time.monotonic_ns()
        if done.returncode == 0:
            return moment
        said = clean(done.stderr.decode(errors="replace")) or f"exit code {done.returncode}"
        time.sleep(RETRY_SECONDS)
    raise Timeout(f"'{words}' did not succeed in {timeout_seconds:g} s; it said '{said}'")


def _connect(address: str, port: int, end: float) -> tuple[socket.socket, int]:
    """The first of several attempts that succeeds, and when it did."""
    trying: dict[int, socket.socket] = {}
    events = select.poll()
    try:
        while time.monotonic() < end:
            if len(trying) < _ATTEMPTS:
                fresh = _attempt(address, port)
                if fresh is not None:
                    trying[fresh.fileno()] = fresh
                    events.register(fresh, select.POLLOUT)
            ready = events.poll(1000 * min(_ATTEMPT_SECONDS, max(end - time.monotonic(), 0)))
            moment = time.monotonic_ns()
            for descriptor, _ in ready:
                events.unregister(descriptor)
                attempt = trying.pop(descriptor)
                if attempt.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    return attempt, moment
                attempt.close()
            if ready:
                time.sleep(RETRY_SECONDS)
    finally:
        for attempt in trying.values():
            attempt.close()
    raise Timeout(f"nothing takes a connection at '{address}:{port}'")


def _attempt(address: str, port: int) -> socket.socket | None:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    code = made.connect_ex((address, port))
    if code in (0, errno.EINPROGRESS):
        return made
    made.close()
    return None


def _status(connected: socket.socket, request: bytes, end: float) -> str:
    """The status of the reply, or what there was instead."""
    head = b""
    try:
        connected.settimeout(max(end - time.monotonic(), 0.001))
        connected.sendall(request)
        while b"\r\n\r\n" not in head and len(head) < _REPLY_BYTES:
            piece = connected.recv(4096)
            if not piece:
                break
            head += piece
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else "no reply"
    words = head.split(b"\r\n", 1)[0].split(b" ", _HEAD_WORDS)
    if len(words) < _HEAD_WORDS or not words[0].startswith(b"HTTP/1.") or b"\r\n\r\n" not in head:
        return clean(head[:40].decode(errors="replace")) or "nothing"
    return words[1].decode(errors="replace")
