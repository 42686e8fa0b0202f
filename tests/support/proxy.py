"""An HTTP proxy on loopback that takes every host to be one of ours."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Proxy:
    """Where it listens; `tunnels` are the hosts it was asked to connect to, with what login."""

    host: str
    target: str
    tunnels: list[tuple[str, str]] = field(default_factory=list)


class _Handler(BaseHTTPRequestHandler):
    served: Proxy

    def do_CONNECT(self) -> None:
        login = self.headers.get("Proxy-Authorization", "")
        self.served.tunnels.append((self.path, login))
        name, _, port = self.served.target.partition(":")
        with socket.create_connection((name, int(port))) as there:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_copy, args=(there, self.connection))
            back.start()
            _copy(self.connection, there)
            back.join()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy(target: str) -> Iterator[Proxy]:
    """A proxy whose tunnels all lead to `target`."""
    made = Proxy("", target)
    handler = type("Handler", (_Handler,), {"served": made})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        made.host = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield made
        server.shutdown()
