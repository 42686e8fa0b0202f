"""One instance, as the SDK sees it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from proa.client import measures, registry
from proa.client.connection import Connection, instance_path, own_path, quote, target
from proa.client.streams import STDERR, Demultiplexer, Plain
from proa.client.values import Result
from proa.errors import NotModified, ProaError

if TYPE_CHECKING:
    from proa.client.sdk import Client
    from proa.costs import Memory


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

    def fork(self, count: int = 1, name: str = "") -> list[Instance]:
        """Copies of a running vm, processes and all; `name` is the beginning of theirs."""
        made = self._own("POST", "/fork", count=count, name=name)
        return [Instance(self._client, item["Id"]) for item in made["Instances"]]

    def migrate(self, to: str) -> None:
        """Move a running vm to the engine at another socket, `unix:///path`."""
        self._own("POST", "/migrate", to=to)

    def suspend(self) -> None:
        """Save a running vm to disk and end it."""
        self._own("POST", "/suspend")

    def resume(self) -> None:
        """Let a suspended vm go on."""
        self._own("POST", "/resume")

    def snapshot(self, name: str, *, memory: bool = False) -> dict[str, Any]:
        """Keep its files, or with `memory` all of a running vm, under a name."""
        made: dict[str, Any] = self._own("POST", "/snapshots", name=name, memory=memory)
        return made

    def snapshots(self) -> list[dict[str, Any]]:
        """Its snapshots, oldest first."""
        found: list[dict[str, Any]] = self._own("GET", "/snapshots")
        return found

    def restore(self, name: str, as_name: str = "") -> Instance:
        """Put it back to a snapshot, or make a new instance of one."""
        made = self._own("POST", "/restore", **{"name": name, "as": as_name})
        return Instance(self._client, made["Id"])

    def push_snapshot(self, name: str, to: str) -> str:
        """Send a snapshot with memory to a repository; its digest there."""
        with self._client.connect() as connection:
            return registry.push_snapshot(connection, self.id, name, to)

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot."""
        self._own("DELETE", "/snapshots", name=name)

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

    def disks(self) -> list[dict[str, Any]]:
        """The disks of a vm, each with the files it is made of, top first."""
        found: list[dict[str, Any]] = self._client.call("GET", f"/proa/instances/{self.id}/disks")
        return found

    def flatten(self) -> None:
        """Make each of its disks one file that needs no other."""
        self._client.call("POST", f"/proa/instances/{self.id}/flatten")

    def rebase(self, base: str, *, moved: bool = False) -> None:
        """Put its disk over the one with this absolute path; `moved`: the same one, moved."""
        body = {"Base": base, "Moved": moved}
        self._client.call("POST", f"/proa/instances/{self.id}/rebase", body=body)

    def rollback(self, snapshot: str = "", *, force: bool = False) -> None:
        """Put its files back to its image's or a snapshot's; `force` kills one that runs."""
        body = {"Snapshot": snapshot, "Force": force}
        self._client.call("POST", f"/proa/instances/{self.id}/rollback", body=body)

    def update(self, **resources: Any) -> None:
        """Change limits, at once when it runs: Docker's Resources, like `Memory=1 << 30`."""
        self._client.call("POST", instance_path(self.id, "/update"), body=resources)

    def connect(self, network: str, aliases: Sequence[str] = (), address: str = "") -> None:
        """Let it join a network, at once when it runs."""
        ipam = {"IPAMConfig": {"IPv4Address": address}} if address else {}
        settings = {"Aliases": list(aliases), **ipam}
        body = {"Container": self.id, "EndpointConfig": settings}
        self._client.call("POST", f"/networks/{quote(network)}/connect", body=body)

    def disconnect(self, network: str) -> None:
        """Let it leave a network."""
        path = f"/networks/{quote(network)}/disconnect"
        self._client.call("POST", path, body={"Container": self.id})

    def attach_volume(self, source: str, target: str, *, readonly: bool = False) -> None:
        """Let a volume, or a host's directory by its absolute path, appear at `target`."""
        kind = "bind" if source.startswith("/") else "volume"
        mount = {"Type": kind, "Source": source, "Target": target, "ReadOnly": readonly}
        self._client.call("POST", f"/proa/instances/{self.id}/mounts", body=mount)

    def detach_volume(self, what: str) -> None:
        """Take a volume by name, or what is at a target."""
        self._client.call("DELETE", f"/proa/instances/{self.id}/mounts", {"of": what})

    def attach_disk(self, path: str = "", *, size: int = 0, readonly: bool = False) -> str:
        """Plug a disk into a vm: a file by its absolute path, or an empty one; its name inside."""
        body = {"Path": path, "Size": size, "ReadOnly": readonly}
        answer = self._client.call("POST", f"/proa/instances/{self.id}/disks", body=body)
        return str(answer["Name"])

    def detach_disk(self, name: str) -> None:
        """Unplug an added disk."""
        self._client.call("DELETE", f"/proa/instances/{self.id}/disks", {"of": name})

    def memory(self) -> Memory:
        """Where the memory is that it costs the host, everything counted once."""
        return measures.memory(self._own("GET", "/memory"))

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
            stdout, stderr = converse(connection, input)
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

    def commit(self, name: str = "", *, pause: bool = True, message: str = "") -> str:
        """Make an image of its files; the image's id."""
        repository, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = name, "latest" if name else ""
        query: dict[str, object] = {
            "container": self.id, "repo": repository or None, "tag": tag or None, "pause": pause,
            "comment": message or None,
        }  # fmt: skip
        return str(self._client.call("POST", "/commit", query)["Id"])

    def changes(self) -> list[tuple[str, str]]:
        """What it changed about its image: A, C or D, and the path."""
        found = self._client.call("GET", instance_path(self.id, "/changes")) or []
        return [("CAD"[item["Kind"]], item["Path"]) for item in found]

    def export(self) -> Iterator[bytes]:
        """A tar stream of all its files, but for what is mounted."""
        return self._client.stream("GET", instance_path(self.id, "/export")).parts()

    def screenshot(self) -> bytes:
        """A machine's screen, PNG."""
        return self._client.stream("GET", f"/proa/instances/{self.id}/screen").read()

    def keys(self, *words: str, text: bool = False, delay_ms: int = 60) -> None:
        """Type keys (like `ctrl-alt-delete`) and text, with `text` all of it, into a machine."""
        body = {"Words": list(words), "Text": text, "DelayMilliseconds": delay_ms}
        self._client.call("POST", f"/proa/instances/{self.id}/keys", body=body)

    def click(self, x: int, y: int, button: str = "left") -> None:
        """Click on a pixel of a machine's screen."""
        body = {"X": x, "Y": y, "Button": button}
        self._client.call("POST", f"/proa/instances/{self.id}/click", body=body)

    def vnc(self) -> tuple[socket.socket, bytes]:
        """A connection on which a machine's screen speaks VNC (RFB), and what it has said already;
        the caller closes it."""
        connection = self._client.connect()
        connection.begin_hijack("GET", f"/proa/instances/{self.id}/vnc")
        connection.hijack()
        return socket.socket(fileno=connection.socket.detach()), connection.early

    def _own(self, method: str, path: str, **query: object) -> Any:
        return self._client.call(method, own_path(self.id, path), query)

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


def converse(
    connection: Connection, input: bytes | None, *, tty: bool = False
) -> tuple[bytes, bytes]:
    """Send `input` while collecting output, so that neither side waits for the other."""

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
