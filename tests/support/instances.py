"""A small Docker-API client for tests: one `Place` per isolation, which cleans up after itself."""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.http import ApiError, Request, demultiplex, hijack, read_all, send

Json = dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a finished command left."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Api:
    """The engine behind one socket."""

    socket: Path

    def call(
        self, method: str, path: str, body: Json | bytes | None = None, /, **query: Any
    ) -> bytes:
        """One call, its whole answer."""
        return send(self.socket, Request(method, path, query, body)).read()

    def json(
        self, method: str, path: str, body: Json | bytes | None = None, /, **query: Any
    ) -> Any:
        """One call, its answer parsed; None for an empty one."""
        data = self.call(method, path, body, **query)
        return json.loads(data) if data.strip() else None

    def load(self, archive: bytes) -> str:
        """POST /images/load; the text of its progress lines."""
        return self.call("POST", "/images/load", archive, quiet=1).decode()

    def ids(self) -> set[str]:
        """Every instance the engine knows."""
        return {row["Id"] for row in self.json("GET", "/containers/json", all=1)}


@dataclass(frozen=True)
class Instance:
    """One created instance."""

    api: Api
    id: str

    @property
    def path(self) -> str:
        """Its noun in the API."""
        return f"/containers/{self.id}"

    def start(self) -> Instance:
        """Start it; itself, for chaining."""
        self.api.call("POST", f"{self.path}/start")
        return self

    def wait(self, condition: str = "not-running") -> int:
        """Block until it ended; its exit code."""
        return int(self.api.json("POST", f"{self.path}/wait", condition=condition)["StatusCode"])

    def stop(self, seconds: int = 10) -> None:
        """Signal, grace, kill."""
        self.api.call("POST", f"{self.path}/stop", t=seconds)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to the main process."""
        self.api.call("POST", f"{self.path}/kill", signal=signal)

    def remove(self, force: bool = True) -> None:
        """Remove it, killing it first when forced."""
        self.api.call("DELETE", self.path, force=int(force), v=1)

    def inspect(self) -> Json:
        """Docker's inspect."""
        return dict(self.api.json("GET", f"{self.path}/json"))

    def state(self) -> Json:
        """Its State."""
        return dict(self.inspect()["State"])

    def logs(self, **query: Any) -> Result:
        """The log, demultiplexed (or raw in stdout for a terminal)."""
        query = {"stdout": 1, "stderr": 1} | query
        response = send(self.api.socket, Request("GET", f"{self.path}/logs", query))
        if self.inspect()["Config"]["Tty"]:
            return Result(0, response.read().decode(errors="replace"), "")
        return gather(response)

    def attach(self, **flags: int) -> socket.socket:
        """A raw attach stream; works before start too."""
        query = {"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1} | flags
        return hijack(self.api.socket, Request("POST", f"{self.path}/attach", query))

    def exec(self, *command: str, stdin: bytes | None = None, **config: Any) -> Result:
        """Run a command inside and wait for it."""
        identity = self.exec_create(*command, stdin=stdin is not None, **config)
        sock = self.exec_start(identity, tty=bool(config.get("Tty")))
        if stdin is not None:
            sock.sendall(stdin)
            sock.shutdown(socket.SHUT_WR)
        result = gather(sock) if not config.get("Tty") else raw(sock)
        code = self.exec_inspect(identity)["ExitCode"]
        return Result(code, result.stdout, result.stderr)

    def exec_create(self, *command: str, stdin: bool = False, **config: Any) -> str:
        """The exec's id."""
        body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True} | config
        body["AttachStdin"] = stdin
        return str(self.api.json("POST", f"{self.path}/exec", body)["Id"])

    def exec_start(self, identity: str, tty: bool = False) -> socket.socket:
        """The exec's stream."""
        body: Json = {"Detach": False, "Tty": tty}
        return hijack(self.api.socket, Request("POST", f"/exec/{identity}/start", body=body))

    def exec_inspect(self, identity: str) -> Json:
        """Docker's exec inspect."""
        return dict(self.api.json("GET", f"/exec/{identity}/json"))

    def put(self, path: str, files: dict[str, bytes]) -> None:
        """Copy files into the directory `path`."""
        self.api.call("PUT", f"{self.path}/archive", tar_of(files), path=path)

    def get(self, path: str) -> dict[str, bytes]:
        """Copy a file or directory out: name → content of the regular files."""
        data = self.api.call("GET", f"{self.path}/archive", path=path)
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            return {
                member.name: extracted.read()
                for member in archive
                if member.isfile() and (extracted := archive.extractfile(member))
            }


@dataclass
class Place:
    """Makes instances of one isolation and removes them at the end."""

    api: Api
    isolation: str
    made: list[Instance] = field(default_factory=list)

    def create(self, image: str, *command: str, name: str | None = None, **config: Any) -> Instance:
        """Create; keys of Docker's HostConfig go into `host={...}`."""
        host = {"Isolation": self.isolation} | config.pop("host", {})
        body = {"Image": image, "HostConfig": host} | config
        if command:
            body["Cmd"] = list(command)
        answer = self.api.json("POST", "/containers/create", body, name=name)
        self.made.append(Instance(self.api, answer["Id"]))
        return self.made[-1]

    def start(self, image: str, *command: str, **config: Any) -> Instance:
        """Create and start."""
        return self.create(image, *command, **config).start()

    def run(self, image: str, *command: str, stdin: bytes | None = None, **config: Any) -> Result:
        """Create, attach, start, feed, read to the end, wait."""
        if stdin is not None:
            config |= {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
        instance = self.create(image, *command, **config)
        sock = instance.attach(stdin=int(stdin is not None))
        instance.start()
        if stdin is not None:
            feed(sock, stdin)
        result = raw(sock) if config.get("Tty") else gather(sock)
        return Result(instance.wait(), result.stdout, result.stderr)

    def close(self) -> None:
        """Remove all that is left."""
        for instance in self.made:
            with contextlib.suppress(ApiError):
                instance.remove()


def feed(sock: socket.socket, data: bytes) -> None:
    """Write in the background, then close the sending side (so output may flow meanwhile)."""

    def work() -> None:
        with contextlib.suppress(OSError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

    threading.Thread(target=work, daemon=True).start()


def exactly(stream: socket.socket, count: int) -> bytes:
    """That many bytes, fewer only at the end (MSG_WAITALL does not wait on a socket with a
    time-out)."""
    data = b""
    while len(data) < count and (piece := stream.recv(count - len(data))):
        data += piece
    return data


def gather(stream: Any) -> Result:
    """A multiplexed stream to its end."""
    parts: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    for name, data in demultiplex(stream):
        parts[name].append(data)
    text = {name: b"".join(pieces).decode(errors="replace") for name, pieces in parts.items()}
    return Result(0, text["stdout"], text["stderr"])


def raw(sock: socket.socket) -> Result:
    """A terminal's stream to its end."""
    return Result(0, read_all(sock).decode(errors="replace"), "")


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar with these regular files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def eventually(check: Callable[[], Any], seconds: float = 10, message: str = "") -> Any:
    """The first true value of `check`; fails the test when none comes in time."""
    end = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(message or f"still {value!r} after {seconds} s")
        time.sleep(0.02)


def lines(text: str) -> Iterator[str]:
    """Lines without their terminal's carriage returns."""
    return (line.rstrip("\r") for line in text.splitlines())
