"""Connections that wait to be used again, and what TLS goes by; for any number of users."""

from __future__ import annotations

import http.client
import ssl
import threading
from collections import defaultdict

from proa.errors import RegistryError
from proa.image.registry.hosts import Trust
from proa.image.registry.wire import Route

_IDLE = 8  # connections kept per host


class Pool:
    """Safe for many threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._idle: defaultdict[Route, list[http.client.HTTPConnection]] = defaultdict(list)
        self._contexts: dict[Trust, ssl.SSLContext] = {}

    def take(self, route: Route) -> http.client.HTTPConnection | None:
        """A connection that was given back."""
        with self._guard:
            kept = self._idle.get(route)
            return kept.pop() if kept else None

    def give(self, route: Route, connection: http.client.HTTPConnection) -> None:
        """Somebody may have this connection next."""
        with self._guard:
            if connection.sock is not None and len(self._idle[route]) < _IDLE:
                self._idle[route].append(connection)
                return
        connection.close()

    def close(self) -> None:
        """Close every connection that waits."""
        with self._guard:
            for connections in self._idle.values():
                for connection in connections:
                    connection.close()
            self._idle.clear()

    def context(self, trust: Trust) -> ssl.SSLContext:
        """How TLS is spoken; certificate files are read once."""
        with self._guard:
            if trust not in self._contexts:
                self._contexts[trust] = _context(trust)
            return self._contexts[trust]


def _context(trust: Trust) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        for authority in trust.authorities:
            context.load_verify_locations(authority)
        if trust.identity:
            context.load_cert_chain(*trust.identity)
    except (OSError, ssl.SSLError) as error:
        names = ", ".join(map(str, (*trust.authorities, *(trust.identity or ()))))
        raise RegistryError(f"the certificates '{names}' cannot be read: {error}") from error
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
