"""Connections to registries: HTTP/1.1 through the standard library, watched byte by byte.

Whoever answers is not trusted: a peer that sends next to nothing for a while is left, whatever it
sends is read in pieces, and a broken connection is always told from a finished answer.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proa.errors import Cancelled, RegistryError
from proa.printable import clean

_BUFFER_BYTES = 64 << 10
LOOK_SECONDS = 0.5  # how often somebody who waits looks whether he shall go on


class Unreachable(RegistryError):
    """No whole answer came: worth another try, or another mirror."""


class NotTls(Unreachable):
    """Whoever listens there does not speak TLS."""


@dataclass(frozen=True)
class Patience:
    """How long to wait: for a connection, for an answer's first byte, and then for each interval's
    `minimum_bytes`; how often to try, and the longest pause a registry may ask for."""

    connect_seconds: float = 15
    answer_seconds: float = 60
    interval_seconds: float = 30
    minimum_bytes: int = 4096
    attempts: int = 5
    pause_seconds: float = 0.25
    longest_pause_seconds: float = 60


@dataclass(frozen=True)
class Terms:
    """What a connection is used under; `stopped` ends whatever waits for an answer."""

    patience: Patience
    stopped: Callable[[], bool]


class _Watched(io.RawIOBase):
    """What a connection sends; ends in `TimeoutError` when that is too little.

    Only the time spent waiting counts: a reader may take its own.
    """

    def __init__(self, connected: socket.socket, terms: Terms) -> None:
        self._held = connected.makefile("rb", buffering=0)  # the socket stays open until we close
        self._socket = connected
        self._terms = terms
        self._left = terms.patience.answer_seconds
        self._missing = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = -1
        while count < 0:
            if self._terms.stopped():
                raise Cancelled("stopped while a registry was answering")
            count = self._receive(buffer)
        self._missing -= count
        if self._missing <= 0:
            self._left = self._terms.patience.interval_seconds
            self._missing = self._terms.patience.minimum_bytes
        return count

    def _receive(self, buffer: Any) -> int:
        """How many bytes came; -1 for none yet."""
        began = time.monotonic()
        self._socket.settimeout(max(min(self._left, LOOK_SECONDS), 0.001))
        try:
            return self._socket.recv_into(buffer)
        except TimeoutError:
            return -1
        finally:
            self._left -= time.monotonic() - began
            if self._left <= 0 < self._missing:
                raise TimeoutError("it sends too slowly")

    def close(self) -> None:
        self._held.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response read through `_Watched`."""

    def __init__(self, terms: Terms, sock: socket.socket, **options: Any) -> None:
        super().__init__(sock, **options)
        self.fp.close()
        self.fp = io.BufferedReader(_Watched(sock, terms), _BUFFER_BYTES)


@dataclass(frozen=True)
class Route:
    """How a host is reached: `(scheme, host, port)`, through which proxy, and TLS by what."""

    scheme: str
    host: str
    port: int
    proxy: tuple[str, int, str] | None = None  # host, port, value of Proxy-Authorization
    context: ssl.SSLContext | None = None


def connect(route: Route, terms: Terms) -> http.client.HTTPConnection:
    """A new connection, made now.  Raises Unreachable, NotTls or RegistryError."""
    made = _connection(route, terms.patience)
    bind(made, terms)
    where = f"'{route.host}:{route.port}'"
    try:
        made.connect()
    except ssl.SSLCertVerificationError as error:
        made.close()
        raise RegistryError(
            f"the certificate of {where} is not trusted: {error.verify_message}",
            hint=f"put its authority in '/etc/docker/certs.d/{route.host}:{route.port}/ca.crt'",
        ) from error
    except ssl.SSLError as error:
        made.close()
        raise NotTls(f"no TLS with {where}: {error.reason or error}") from error
    except (OSError, http.client.HTTPException) as error:
        made.close()
        kind = NotTls if route.context and isinstance(error, ConnectionResetError) else Unreachable
        raise kind(f"cannot reach {where}: {reason(error)}") from error
    return made


def bind(connection: http.client.HTTPConnection, terms: Terms) -> None:
    """Whoever uses a connection next sets the terms."""
    setattr(connection, "response_class", functools.partial(_Response, terms))  # noqa: B010


def _connection(route: Route, patience: Patience) -> http.client.HTTPConnection:
    host, port, login = route.proxy or (route.host, route.port, "")
    seconds = patience.connect_seconds
    if route.context is None:
        return http.client.HTTPConnection(host, port, seconds)
    made = http.client.HTTPSConnection(host, port, timeout=seconds, context=route.context)
    if route.proxy:
        headers = {"Proxy-Authorization": login} if login else {}
        made.set_tunnel(route.host, route.port, headers)
    return made


def reason(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer was cut off"
    if isinstance(error, TimeoutError):
        return "it does not answer in time" if "slowly" not in str(error) else str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return clean(str(error)) or type(error).__name__
