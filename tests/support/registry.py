"""Debian's `docker-registry` on loopback, and a small token server for it.

with registry() as r:                     # plain http
with registry(tls=True) as r:             # https by an authority of its own: r.ca
with registry(login=("me", "secret")):    # Basic (htpasswd)
with registry(login=(...), token=True):   # Bearer tokens of r.token_server
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.instances import eventually

_CONFIGURATION = """\
version: 0.1
log: {{level: info, formatter: json, accesslog: {{disabled: false}}}}
storage: {{filesystem: {{rootdirectory: {data}}}, delete: {{enabled: true}}}}
http:
  addr: {host}
  secret: tests
{tls}
{auth}
"""
_WITH_US = ("setpriv", "--pdeathsig", "KILL")  # it ends when the tests are killed


@dataclass
class Registry:
    """One running registry; `log` has a line of JSON for every request it answered."""

    host: str
    folder: Path
    tls: bool = False
    login: tuple[str, str] | None = None
    token_server: TokenServer | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def ca(self) -> Path:
        """The authority that signed its certificate (with `tls`)."""
        return self.folder / "ca.crt"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self.tls else 'http'}://{self.host}"

    def push_with_skopeo(self, source: str, name: str, *options: str) -> str:
        """Copy any skopeo source (`docker-archive:...`) to `name` here; its full name."""
        target = f"docker://{self.host}/{name}"
        self.skopeo("copy", *options, *self._options("dest"), source, target)
        return f"{self.host}/{name}"

    def inspect_with_skopeo(self, name: str) -> bytes:
        """The raw manifest or index of `name` here."""
        return self.skopeo("inspect", "--raw", *self._options(""), f"docker://{self.host}/{name}")

    def _options(self, side: str) -> list[str]:
        dash = f"{side}-" if side else ""
        found = [f"--{dash}tls-verify=false"]
        if self.login:
            found.append(f"--{dash}creds={self.login[0]}:{self.login[1]}")
        return found

    def skopeo(self, *arguments: str) -> bytes:
        """Run skopeo; its output."""
        argv = ["skopeo", "--insecure-policy", *arguments]
        done = subprocess.run(argv, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def requests(self, *words: str) -> list[str]:
        """Lines `METHOD URI STATUS` of what was asked so far and has all these words."""
        found = []
        for line in (self.folder / "log").read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("msg") == "response completed":
                    text = "{http.request.method} {http.request.uri} {http.response.status}"
                    found.append(_fill(text, entry))
        return [line for line in found if all(word in line for word in words)]

    def answers(self) -> bool:
        """Whether somebody listens; fails at once when the registry has ended."""
        assert self.process is not None
        said = (self.folder / "log").read_text() if self.process.poll() is not None else ""
        assert self.process.poll() is None, f"docker-registry ended:\n{said[-2000:]}"
        with contextlib.suppress(OSError):
            name, _, port = self.host.partition(":")
            socket.create_connection((name, int(port)), 1).close()
            return True
        return False


def _fill(text: str, entry: dict[str, object]) -> str:
    for key in ("http.request.method", "http.request.uri", "http.response.status"):
        text = text.replace("{" + key + "}", str(entry.get(key, "")))
    return text


@contextlib.contextmanager
def registry(
    *, tls: bool = False, login: tuple[str, str] | None = None, token: bool = False
) -> Iterator[Registry]:
    """A registry of its own folder and port, gone at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="proa-registry-")))
        made = Registry(f"127.0.0.1:{free_port()}", folder, tls, login)
        if tls or token:
            authority(folder)
        if token:
            assert login is not None
            made.token_server = stack.enter_context(token_server(folder, login))
        configuration = folder / "config.yml"
        configuration.write_text(
            _CONFIGURATION.format(
                data=folder / "data", host=made.host, tls=_tls(made), auth=_auth(made)
            )
        )
        with (folder / "log").open("ab") as log:
            made.process = subprocess.Popen(
                [*_WITH_US, "docker-registry", "serve", str(configuration)], stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"], "HOME": str(folder)},
            )  # fmt: skip
        stack.callback(_stop, made.process)
        eventually(made.answers, 15, "docker-registry did not come up")
        yield made


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _tls(made: Registry) -> str:
    if not made.tls:
        return ""
    key, certificate = made.folder / "server.key", made.folder / "server.crt"
    return f"  tls: {{certificate: {certificate}, key: {key}}}"


def _auth(made: Registry) -> str:
    if made.login is None:
        return ""
    if made.token_server is not None:
        bundle = made.folder / "server.crt"
        return (
            f"auth: {{token: {{realm: '{made.token_server.url}', service: tests, issuer: tests, "
            f"rootcertbundle: {bundle}}}}}"
        )
    file = made.folder / "htpasswd"
    argv = ["htpasswd", "-Bbc", str(file), *made.login]
    subprocess.run(argv, check=True, capture_output=True)
    return f"auth: {{htpasswd: {{realm: tests, path: {file}}}}}"


def authority(folder: Path) -> None:
    """`ca.crt`, and `server.crt` with `server.key` for 127.0.0.1 signed by it."""
    (folder / "extensions").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    commands = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=tests-ca "
        "-keyout ca.key -out ca.crt",
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=tests -keyout server.key "
        "-out server.csr",
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 "
        "-extfile extensions -out server.crt",
    )
    for command in commands:
        argv = ["openssl", *command.split()]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)


# -- tokens ----------------------------------------------------------------------------------------


@dataclass
class TokenServer:
    """Gives tokens for a login; `scopes` are what was asked for, in order."""

    url: str
    scopes: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


@contextlib.contextmanager
def token_server(folder: Path, login: tuple[str, str]) -> Iterator[TokenServer]:
    """Signs with `server.key` in `folder`: RFC 7519 with ES256, as distribution wants it."""
    pair = base64.b64encode(f"{login[0]}:{login[1]}".encode()).decode()
    made = TokenServer("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            scopes = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query).get("scope", [])
            right = self.headers.get("Authorization") == f"Basic {pair}"
            (made.scopes if right else made.refused).extend(scopes)
            body = json.dumps({"token": _token(folder, login[0], scopes)} if right else {}).encode()
            self.send_response(200 if right else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made.url = f"http://127.0.0.1:{server.server_port}/token"
        yield made
        server.shutdown()


def _token(folder: Path, subject: str, scopes: list[str]) -> str:
    access = []
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        access.append({"type": kind, "name": name, "actions": actions.split(",")})
    certificate = (folder / "server.crt").read_text().split("-----")[2].replace("\n", "")
    now = int(time.time())
    head = {"typ": "JWT", "alg": "ES256", "x5c": [certificate]}
    claims = {
        "iss": "tests", "aud": "tests", "sub": subject, "nbf": now - 60, "iat": now,
        "exp": now + 300, "jti": os.urandom(8).hex(), "access": access,
    }  # fmt: skip
    text = ".".join(_url64(json.dumps(part).encode()) for part in (head, claims))
    return f"{text}.{_url64(_signature(folder, text.encode()))}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _signature(folder: Path, text: bytes) -> bytes:
    """r and s, 32 bytes each, out of openssl's DER."""
    argv = ["openssl", "dgst", "-sha256", "-sign", str(folder / "server.key")]
    der = subprocess.run(argv, input=text, check=True, capture_output=True).stdout
    first = der[4 : 4 + der[3]]
    second = der[6 + der[3] :]
    return b"".join(int.from_bytes(part, "big").to_bytes(32, "big") for part in (first, second))


def available() -> bool:
    """Whether what is needed is installed."""
    return all(map(shutil.which, ("docker-registry", "skopeo", "openssl", "htpasswd")))
