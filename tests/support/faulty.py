"""A registry that misbehaves on demand: what it serves is made here, how it serves is up to a test.

    with faulty() as server:
        image = server.image([layer])                  # a name to pull: HOST/test:latest
        server.on("/blobs/", cut_after=1000, times=2)  # the first two answers break off

`server.asked` is every request with its headers; `server.elsewhere` another origin, which
records what comes along when it is redirected to.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

OCI = "application/vnd.oci.image"
MANIFEST, INDEX = f"{OCI}.manifest.v1+json", f"{OCI}.index.v1+json"
CONFIG, LAYER = f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar+gzip"


def digest_of(data: bytes) -> str:
    """Its sha256."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def descriptor(kind: str, data: bytes, **more: Any) -> dict[str, Any]:
    """What refers to `data`."""
    return {"mediaType": kind, "digest": digest_of(data), "size": len(data)} | more


@dataclass(frozen=True)
class Asked:
    """One request that came."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class Fault:
    """What is wrong with answers to paths that contain `path`, so many `times`."""

    path: str
    times: int = 1 << 30
    cut_after: int = -1  # bytes of the body, then the connection breaks
    until: threading.Event | None = None  # ... or the rest comes when this happens
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # in the place of the right one
    endless: bool = False  # more and more, chunked
    drip_seconds: float = 0  # between single bytes
    silent: bool = False  # nothing at all
    raw: bytes = b""  # this in the place of an answer


@dataclass
class Faulty:
    """The running registry."""

    host: str
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    ranges: bool = True
    ended: threading.Event = field(default_factory=threading.Event)
    guard: threading.Lock = field(default_factory=threading.Lock)

    # -- what there is --------------------------------------------------------------------------

    def blob(self, data: bytes) -> str:
        """Serve a blob; its digest."""
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def document(self, kind: str, document: Any, *tags: str) -> dict[str, Any]:
        """Serve a manifest or index, by its digest and by tags; what refers to it."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        for name in (*tags, digest_of(data)):
            self.manifests[name] = (kind, data)
        return descriptor(kind, data)

    def image(self, layers: list[bytes], tag: str = "latest", **config: Any) -> str:
        """Serve an image of plain layer tars, compressed; its full name."""
        head = {
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        } | config  # fmt: skip
        packed = [gzip.compress(layer, 1, mtime=0) for layer in layers]
        data = json.dumps(head).encode()
        for blob in (*packed, data):
            self.blob(blob)
        document = {
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor(CONFIG, data),
            "layers": [descriptor(LAYER, blob) for blob in packed],
        }  # fmt: skip
        self.document(MANIFEST, document, tag)
        return f"{self.host}/test:{tag}"

    def on(self, path: str, **fault: Any) -> Fault:
        """Misbehave."""
        made = Fault(path, **fault)
        self.faults.append(made)
        return made

    def fault(self, path: str) -> Fault | None:
        """The fault that strikes now."""
        with self.guard:
            for item in self.faults:
                if item.path in path and item.times > 0:
                    item.times -= 1
                    return item
        return None

    def paths(self, word: str = "") -> list[str]:
        """Paths asked for so far that contain a word."""
        return [item.path for item in self.asked if word in item.path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Faulty

    def do_GET(self) -> None:
        self.served.asked.append(Asked(self.command, self.path, dict(self.headers)))
        fault = self.served.fault(self.path)
        kind, data = self._right()
        if fault is None:
            status = 404 if kind == "" else 200
            self._answer(status, self._ranged(data) if status == 200 else b"{}", kind)
        elif fault.silent:
            self.served.ended.wait(60)
            self.close_connection = True
        elif fault.raw:
            self.wfile.write(fault.raw)
            self.close_connection = True
        else:
            self._wrong(fault, kind, data if fault.body is None else fault.body)

    do_HEAD = do_GET

    def _right(self) -> tuple[str, bytes]:
        name = self.path.rpartition("/")[2]
        if self.path == "/v2/":
            return "application/json", b"{}"
        if "/manifests/" in self.path:
            return self.served.manifests.get(name, ("", b""))
        if name in self.served.blobs:
            return "application/octet-stream", self.served.blobs[name]
        return "", b""

    def _ranged(self, data: bytes) -> bytes:
        asked = self.headers.get("Range", "")
        if not asked or not self.served.ranges or "/blobs/" not in self.path:
            return data
        self.start = int(asked.removeprefix("bytes=").rstrip("-"))
        return data[self.start :]

    def _answer(self, status: int, data: bytes, kind: str, **headers: str) -> None:
        start = getattr(self, "start", 0)
        self.start = 0
        self.send_response(206 if start else status)
        if start:
            end = start + len(data)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        fields = {"Content-Type": kind, "Content-Length": str(len(data))} | headers
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _wrong(self, fault: Fault, kind: str, data: bytes) -> None:
        data = self._ranged(data)
        if fault.endless or fault.drip_seconds or fault.cut_after >= 0:
            self.close_connection = True
            self.send_response(206 if getattr(self, "start", 0) else fault.status)
            if getattr(self, "start", 0):
                end = self.start + len(data)
                self.send_header("Content-Range", f"bytes {self.start}-{end - 1}/{end}")
            self.start = 0
            self.send_header("Content-Type", kind)
            self._headers(fault, data)
            self._body(fault, data)
        else:
            self._answer(fault.status, data, kind, **fault.headers)

    def _headers(self, fault: Fault, data: bytes) -> None:
        if fault.endless:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()

    def _body(self, fault: Fault, data: bytes) -> None:
        with contextlib.suppress(OSError):
            while fault.endless and not self.served.ended.is_set():
                self.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            if fault.drip_seconds:
                for byte in data:
                    self.wfile.write(bytes([byte]))
                    if self.served.ended.wait(fault.drip_seconds):
                        return
            elif fault.cut_after >= 0:
                self.wfile.write(data[: fault.cut_after])
                if fault.until is not None:
                    fault.until.wait(60)
                    self.wfile.write(data[fault.cut_after :])
                else:
                    self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of it."""


@contextlib.contextmanager
def faulty(certificates: Path | None = None) -> Iterator[Faulty]:
    """A registry, honest until told otherwise; over TLS with a folder's `server.crt` and `.key`."""
    made = Faulty("")
    handler = type("Handler", (_Handler,), {"served": made})
    with _Server(("127.0.0.1", 0), handler) as server:
        made.host = f"127.0.0.1:{server.server_port}"
        if certificates is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield made
        finally:
            made.ended.set()
            server.shutdown()
