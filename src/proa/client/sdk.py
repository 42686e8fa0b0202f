"""The Python SDK: a client of the engine's API, typed and small.

    from proa.client import Client

    with Client() as client:
        client.load(Path("image.tar"))
        result = client.run("debian", ["uname", "-r"], isolation="vm")
        print(result.exit_code, result.stdout)

        web = client.create("web", name="web", isolation="container", ports={80: 8080})
        web.start()
        web.exec(["touch", "/tmp/x"])
        web.stop()
        web.remove()

Errors are the classes of `proa.errors`.  A `Client` may be used by one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.client import address, spawn
from proa.client.connection import (
    Answer,
    Connection,
    Upload,
    image_path,
    instance_path,
    target,
)
from proa.client.streams import STDERR, Demultiplexer, Plain
from proa.errors import NotModified, ProaError

_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Result:
    """What a process came to."""

    exit_code: int
    stdout: bytes = b""
    stderr: bytes = b""


@dataclass(frozen=True)
class Image:
    """One image the engine has."""

    id: str
    names: tuple[str, ...]
    size_bytes: int
    created_seconds: int


@dataclass(frozen=True)
class Options:
    """How to run: the parts of a create request people use.  `more` is merged into HostConfig."""

    name: str | None = None
    isolation: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    entrypoint: Sequence[str] | None = None
    directory: str | None = None
    user: str | None = None
    hostname: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    tty: bool = False
    stdin: bool = False
    binds: Sequence[str] = ()
    ports: Mapping[int, int] = field(default_factory=dict)  # inside → on the host, 0: a free one
    memory_bytes: int = 0
    cpus: float = 0.0
    network: str | None = None
    remove: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)

    def request(self, image: str, command: Sequence[str]) -> dict[str, Any]:
        """The API's create request."""
        config: dict[str, Any] = {
            "Image": image,
            "Cmd": list(command) or None,
            "Entrypoint": list(self.entrypoint) if self.entrypoint is not None else None,
            "Env": [f"{key}={value}" for key, value in self.environment.items()] or None,
            "WorkingDir": self.directory,
            "User": self.user,
            "Hostname": self.hostname,
            "Labels": dict(self.labels) or None,
            "Tty": self.tty or None,
            "OpenStdin": self.stdin or None,
            "StdinOnce": self.stdin or None,
            "ExposedPorts": {f"{port}/tcp": {} for port in self.ports} or None,
            "HostConfig": self._host_config(),
        }
        return {key: value for key, value in config.items() if value is not None}

    def _host_config(self) -> dict[str, Any]:
        bindings = {
            f"{inside}/tcp": [{"HostPort": str(outside or "")}]
            for inside, outside in self.ports.items()
        }
        host: dict[str, Any] = {
            "Isolation": self.isolation,
            "Binds": list(self.binds) or None,
            "PortBindings": bindings or None,
            "Memory": self.memory_bytes or None,
            "NanoCpus": round(self.cpus * 1e9) or None,
            "NetworkMode": self.network,
            "AutoRemove": self.remove or None,
        }
        return {key: value for key, value in host.items() if value is not None} | dict(self.more)


class Instance:
    """One instance, by id or name."""

    def __init__(self, client: Client, reference: str) -> None:
        self.id = reference
        self._client = client

    def __repr__(self) -> str:
        return f"Instance({self.id!r})"

    def start(self) -> None:
        """Start it; one that runs already is fine."""
        self._post("/start")

    def stop(self, timeout_seconds: int | None = None) -> None:
        """Stop it, by force after the grace; one that does not run is fine."""
        self._post("/stop", t=timeout_seconds)

    def restart(self, timeout_seconds: int | None = None) -> None:
        """Stop and start it."""
        self._post("/restart", t=timeout_seconds)

    def kill(self, signal: str = "KILL") -> None:
        """Send a signal to the main process."""
        self._post("/kill", signal=signal)

    def pause(self) -> None:
        """Freeze it."""
        self._post("/pause")

    def unpause(self) -> None:
        """Thaw it."""
        self._post("/unpause")

    def rename(self, name: str) -> None:
        """Give it another name."""
        self._post("/rename", name=name)

    def remove(self, *, force: bool = False) -> None:
        """Remove it, and its anonymous volumes."""
        query: dict[str, object] = {"force": force, "v": True}
        self._client.call("DELETE", instance_path(self.id), query)

    def wait(self, condition: str = "not-running") -> int:
        """The exit code, once `condition` is reached: not-running, next-exit or removed."""
        answer = self._client.stream(
            "POST", instance_path(self.id, "/wait"), {"condition": condition}
        ).json()
        if error := (answer.get("Error") or {}).get("Message"):
            raise ProaError(str(error))
        return int(answer["StatusCode"])

    def inspect(self) -> dict[str, Any]:
        """All the engine knows of it, in Docker's shape."""
        details: dict[str, Any] = self._client.call("GET", instance_path(self.id, "/json"))
        return details

    def trace(self) -> list[tuple[str, int]]:
        """Milestones of the last start, with CLOCK_MONOTONIC nanoseconds."""
        answer = self._client.call("GET", f"/proa/instances/{self.id}/trace")
        return [(m["Milestone"], m["Nanoseconds"]) for m in answer["Milestones"]]

    def logs(self) -> Result:
        """What it has written so far; the exit code is that of `State`."""
        details = self.inspect()
        out, err = bytearray(), bytearray()
        for stream, data in self._pieces(details, follow=False):
            (err if stream == STDERR else out).extend(data)
        return Result(int(details["State"].get("ExitCode") or 0), bytes(out), bytes(err))

    def follow(self) -> Iterator[tuple[int, bytes]]:
        """What it writes, from the beginning to its end: (1 for stdout or 2 for stderr, bytes)."""
        return self._pieces(self.inspect(), follow=True)

    def exec(
        self,
        command: Sequence[str],
        *,
        user: str = "",
        directory: str = "",
        environment: Mapping[str, str] | None = None,
        input: bytes | None = None,
    ) -> Result:
        """Run a command inside and collect what it writes; `input` is its standard input."""
        request = {
            "Cmd": list(command),
            "User": user,
            "WorkingDir": directory,
            "Env": [f"{key}={value}" for key, value in (environment or {}).items()],
            "AttachStdin": input is not None,
            "AttachStdout": True,
            "AttachStderr": True,
        }
        created = self._client.call("POST", instance_path(self.id, "/exec"), body=request)
        with self._client.connect() as connection:
            start = {"Detach": False, "Tty": False}
            connection.begin_hijack("POST", f"/exec/{created['Id']}/start", start)
            connection.hijack()
            stdout, stderr = _converse(connection, input)
        return Result(self._exec_code(created["Id"]), stdout, stderr)

    def _exec_code(self, identity: str) -> int:
        """The engine may learn of the end a moment after the output has ended."""
        delay_seconds = 0.001
        while True:
            state = self._client.call("GET", f"/exec/{identity}/json")
            if not state["Running"] or delay_seconds > 0.5:
                return int(state["ExitCode"] or 0)
            time.sleep(delay_seconds)
            delay_seconds *= 2

    def get_archive(self, path: str) -> Iterator[bytes]:
        """A tar stream of the file or directory at `path` inside."""
        query: dict[str, object] = {"path": path}
        return self._client.stream("GET", instance_path(self.id, "/archive"), query).parts()

    def put_archive(self, path: str, tar: bytes) -> None:
        """Unpack a tar into the directory `path` inside."""
        url = target(instance_path(self.id, "/archive"), {"path": path})
        with self._client.connect() as connection:
            connection.request("PUT", url, tar, {"Content-Type": "application/x-tar"}).read()

    def _post(self, verb: str, **query: object) -> None:
        try:
            self._client.call("POST", instance_path(self.id, verb), query)
        except NotModified:
            return

    def _pieces(self, details: dict[str, Any], *, follow: bool) -> Iterator[tuple[int, bytes]]:
        query: dict[str, object] = {"stdout": True, "stderr": True, "follow": follow}
        cutter = Plain() if details["Config"].get("Tty") else Demultiplexer()
        for data in self._client.stream("GET", instance_path(self.id, "/logs"), query).parts():
            yield from cutter.feed(data)


class Client:
    """A client of one engine; started on demand when it is this root's own.

    `host` is `unix:///path`; without it PROA_HOST, else the socket of PROA_ROOT or the system's.
    """

    def __init__(self, host: str | None = None) -> None:
        self._path = host.removeprefix("unix://") if host else None
        self._idle: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; the client stays usable."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    # -- instances ---------------------------------------------------------------------------------

    def create(self, image: str, command: Sequence[str] = (), **options: Any) -> Instance:
        """Make an instance without starting it; `options` are the fields of `Options`."""
        chosen = Options(**options)
        query: dict[str, object] = {"name": chosen.name}
        answer = self.call("POST", "/containers/create", query, body=chosen.request(image, command))
        return Instance(self, answer["Id"])

    def run(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        input: bytes | None = None,
        **options: Any,
    ) -> Result:
        """Run to the end, collect what it writes, remove it."""
        options["stdin"] = input is not None
        instance = self.create(image, command, **options)
        try:
            with self.connect() as attached, self.connect() as waiting:
                query: dict[str, object] = {
                    "stream": True,
                    "stdin": input is not None,
                    "stdout": True,
                    "stderr": True,
                }
                url = target(instance_path(instance.id, "/attach"), query)
                attached.begin_hijack("POST", url)
                waiting.begin("POST", instance_path(instance.id, "/wait?condition=next-exit"))
                attached.hijack()
                ended = waiting.finish()
                instance.start()
                stdout, stderr = _converse(attached, input, tty=bool(options.get("tty")))
                return Result(int(ended.json()["StatusCode"]), stdout, stderr)
        finally:
            instance.remove(force=True)

    def get(self, reference: str) -> Instance:
        """The instance with this name, id or beginning of an id.  Raises NotFound."""
        return Instance(self, Instance(self, reference).inspect()["Id"])

    def instances(self, *, all: bool = False) -> list[Instance]:
        """The instances that run, or all."""
        items = self.call("GET", "/containers/json", {"all": all})
        return [Instance(self, item["Id"]) for item in items]

    # -- images ------------------------------------------------------------------------------------

    def images(self) -> list[Image]:
        """The images the engine has."""
        return [
            Image(i["Id"], tuple(i.get("RepoTags") or ()), i["Size"], i["Created"])
            for i in self.call("GET", "/images/json")
        ]

    def load(self, archive: Path) -> None:
        """Load images from an archive."""

        def pour(body: Upload) -> None:
            with archive.open("rb") as file:
                while data := file.read(_PIECE_BYTES):
                    body.write(data)

        with self.connect() as connection:
            for message in connection.upload("POST", "/images/load?quiet=1", pour).json_lines():
                if "error" in message:
                    raise ProaError(str(message["error"]))

    def save(self, names: Sequence[str], archive: Path) -> None:
        """Write images to an archive."""
        query = "&".join(target("", {"names": name})[1:] for name in names)
        with archive.open("wb") as file:
            for data in self.stream("GET", f"/images/get?{query}").parts():
                file.write(data)

    def remove_image(self, name: str, *, force: bool = False) -> None:
        """Remove a name, and the image with its last one."""
        self.call("DELETE", image_path(name), {"force": force})

    # -- the engine --------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Facts about the engine and its host."""
        facts: dict[str, Any] = self.call("GET", "/info")
        return facts

    def version(self) -> dict[str, Any]:
        """Versions of the engine and its API."""
        facts: dict[str, Any] = self.call("GET", "/version")
        return facts

    def events(self, *, since: str | None = None, until: str | None = None) -> Iterator[Any]:
        """What happens, as it happens."""
        query: dict[str, object] = {"since": since, "until": until}
        return self.stream("GET", "/events", query).json_lines()

    # -- below -------------------------------------------------------------------------------------

    def connect(self) -> Connection:
        """A new connection to the engine."""
        if self._path and self._path != address.socket_path():
            return Connection(self._path)
        return spawn.connect()

    def call(
        self, method: str, path: str, query: dict[str, object] | None = None, body: object = None
    ) -> Any:
        """One exchange; the answer's JSON.  The connection is kept for the next."""
        connection, self._idle = self._idle or self.connect(), None
        try:
            answer = connection.request(method, target(path, query), body)
            value = answer.json()
        except BaseException:
            connection.close()
            raise
        if answer.reusable:
            self._idle = connection
        else:
            connection.close()
        return value

    def stream(self, method: str, path: str, query: dict[str, object] | None = None) -> Answer:
        """An exchange whose body is read as it comes, on a connection of its own."""
        return self.connect().request(method, target(path, query))


def _converse(
    connection: Connection, input: bytes | None, *, tty: bool = False
) -> tuple[bytes, bytes]:
    """Send `input` while collecting output, so that neither side waits for the other."""
    import threading

    def send() -> None:
        try:
            connection.send(input or b"")
            connection.half_close()
        except (ProaError, OSError):
            return  # the process ended without reading it all

    sender = threading.Thread(target=send, daemon=True) if input is not None else None
    if sender:
        sender.start()
    cutter: Demultiplexer | Plain = Plain() if tty else Demultiplexer()
    out, err = bytearray(), bytearray()
    data = connection.early
    while True:
        for stream, piece in cutter.feed(data):
            (err if stream == STDERR else out).extend(piece)
        try:
            data = connection.socket.recv(65536)
        except ConnectionError:
            break
        if not data:
            break
    if sender:
        connection.abandon()
        sender.join()
    return bytes(out), bytes(err)
