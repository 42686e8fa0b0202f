"""A registry that takes what is pushed, in memory, and cuts or forgets uploads on demand.

    with receiver() as server:
        server.cuts = [1000]        # the next upload's body breaks off after so many bytes

What it got is in `blobs` and `manifests`; `asked` is every request.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


def digest_of(data: bytes) -> str:
    """Its sha256."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Asked:
    """One request that came; `got` is how much of its body."""

    method: str
    path: str
    headers: dict[str, str]
    got: int


@dataclass
class Receiver:
    """The running registry."""

    host: str
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, bytearray] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    forgets: bool = False  # an upload that was cut is unknown afterwards
    garbles: bool = False  # what was kept of it is not what came
    lies: bool = False  # another digest is answered
    subjects: bool = False  # it knows the referrers API
    upload_host: str = ""  # where uploads are sent to; empty: here

    def paths(self, method: str, word: str = "") -> list[str]:
        """Paths of the requests by a method that contain a word."""
        return [item.path for item in self.asked if item.method == method and word in item.path]

    def received(self) -> int:
        """Bytes of all bodies of uploads."""
        return sum(item.got for item in self.asked if "/blobs/" in item.path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Receiver

    def _serve(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        body, whole = self._body("/blobs/uploads/" in path)
        noted = Asked(self.command, self.path, dict(self.headers), len(body))
        self.served.asked.append(noted)
        name = path.rpartition("/")[2]
        if "/blobs/uploads/" in path:
            self._upload(name, query, body, whole)
        elif "/blobs/" in path:
            self._answer(200 if name in self.served.blobs else 404)
        elif "/manifests/" in path and self.command == "PUT":
            self.served.manifests[name] = self.served.manifests[digest_of(body)] = body
            fields = {"OCI-Subject": "yes"} if self.served.subjects else {}
            self._answer(201, **fields)
        else:
            self._answer(200 if path == "/v2/" else 404)

    do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = _serve

    def _body(self, upload: bool) -> tuple[bytes, bool]:
        length = int(self.headers.get("Content-Length", 0))
        if upload and length and self.served.cuts:
            return self.rfile.read(min(length, self.served.cuts.pop(0))), False
        return self.rfile.read(length), True

    def _upload(self, name: str, query: dict[str, list[str]], body: bytes, whole: bool) -> None:
        served = self.served
        if self.command == "POST":
            name = str(len(served.uploads))
            served.uploads[name] = bytearray()
            self._located(202, name)
            return
        if name not in served.uploads:
            self._answer(404)
            return
        kept = served.uploads[name]
        claimed = re.match(r"(\d+)-", self.headers.get("Content-Range", ""))
        if claimed and int(claimed[1]) != len(kept):
            self._answer(416)
            return
        kept += bytes(len(body)) if served.garbles and not whole else body
        if not whole:
            if served.forgets:
                del served.uploads[name]
            self.close_connection = True
            self.connection.close()
        elif self.command == "PUT":
            self._finish(bytes(served.uploads.pop(name)), query["digest"][0])
        else:
            self._located(204 if self.command == "GET" else 202, name, len(kept))

    def _finish(self, data: bytes, digest: str) -> None:
        if digest_of(data) != digest:
            self._answer(400)
            return
        self.served.blobs[digest] = data
        said = digest_of(b"something else") if self.served.lies else digest
        self._answer(201, **{"Docker-Content-Digest": said})

    def _located(self, status: int, name: str, size: int = 0) -> None:
        base = f"http://{self.served.upload_host}" if self.served.upload_host else ""
        fields = {"Location": f"{base}/v2/x/blobs/uploads/{name}?state=a%20b"}
        self._answer(status, **fields, Range=f"0-{max(size - 1, 0)}")

    def _answer(self, status: int, **fields: str) -> None:
        self.send_response(status)
        for name, value in {**fields, "Content-Length": "0"}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    """A registry of its own port on loopback, gone at the end."""
    made = Receiver("")
    handler = type("Handler", (_Handler,), {"served": made})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        made.host = f"127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield made
        server.shutdown()
