"""An engine that runs nothing: what the API's own tests talk to.

It keeps instances in a dict and plays a main process with a thread: `echo WORDS` prints them,
`cat` copies its input, `false` exits 1, `sleep` waits to be killed, anything else is not found.
The thing under test is the API; create requests are read by the real `proa.engine.request`.
"""

from __future__ import annotations

import io
import secrets
import socket
import struct
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from proa.engine import networks, request
from proa.engine.events import Events
from proa.engine.options import AttachOptions, LogOptions
from proa.errors import Conflict, ImageNotFound, LaunchError, NotFound, NotModified

IMAGE_ID = "sha256:" + "ab" * 32
IMAGE: dict[str, Any] = {
    "Id": IMAGE_ID,
    "RepoTags": ["tiny:latest"],
    "RepoDigests": [],
    "Created": 1700000000,
    "Size": 4096,
    "SharedSize": -1,
    "Labels": {"made": "here"},
    "Containers": -1,
}

PLATFORM = {"Os": "linux", "Architecture": "amd64"}


def framed(stream: int, data: bytes) -> bytes:
    """Docker's stdcopy frame."""
    return struct.pack(">BxxxI", stream, len(data)) + data


class FakeInstance:
    """An instance and its pretended process."""

    def __init__(self, name: str, body: dict[str, Any]) -> None:
        self.id = secrets.token_hex(32)
        self.name = name
        self.body = body
        self.spec = request.merge(body, {}, self.id)
        self.record = SimpleNamespace(volumes=[], advice={})
        self.tty = self.spec.process.terminal
        self.isolation = self.spec.isolation
        self.image_id, self.image_name = IMAGE_ID, str(body["Image"])
        self.state, self.exit_code, self.error = "created", 0, ""
        self.created = time.time_ns()
        self.started_ns = self.finished_ns = 0
        self.log: list[tuple[int, bytes]] = []
        self.clients: list[tuple[socket.socket, AttachOptions]] = []
        self.lock = threading.RLock()
        self.changed = threading.Condition()
        self.runs = 0
        self.removed = False

    @property
    def live(self) -> bool:
        """Whether the pretended process runs."""
        return self.state in ("running", "paused")

    def write(self, stream: int, data: bytes) -> None:
        """Output of the process: to the log and to who is attached."""
        self.log.append((stream, data))
        for client, options in self.clients:
            if options.stdout if stream == 1 else options.stderr:
                client.sendall(data if self.tty else framed(stream, data))


class FakeImages:
    """One image, `tiny`."""

    def __init__(self) -> None:
        self.names = {"tiny:latest"}
        self.loaded = b""
        self.build_cache = SimpleNamespace(all=list, forget=list)

    def inspect(self, name: str) -> dict[str, Any]:
        if name in self.names or f"{name}:latest" in self.names or name == "ab" * 6:
            return IMAGE | {"Created": "2023-11-14T22:13:20Z", "Config": {}, **PLATFORM}
        if name == IMAGE_ID:
            return IMAGE | {"Created": "2023-11-14T22:13:20Z", "Config": {}, **PLATFORM}
        raise ImageNotFound(f"no such image '{name}'")

    def list(self) -> Sequence[dict[str, Any]]:
        return [IMAGE | {"RepoTags": sorted(self.names)}]

    def history(self, name: str) -> Sequence[Any]:
        return [{"Id": IMAGE_ID, "Created": 1, "CreatedBy": "x", "Size": 1, "Comment": ""}]

    def tag(self, name: str, new: str) -> None:
        self.names.add(new.removeprefix("docker.io/library/"))

    def remove(self, name: str, force: bool = False) -> Any:
        self.names.discard(name if ":" in name else f"{name}:latest")
        return [("untagged", name)]

    def load(self, file: Any) -> Any:
        self.loaded = file.read()
        return [SimpleNamespace(image=SimpleNamespace(id=IMAGE_ID), names=("tiny:latest",))]

    def import_(self, file: Any, name: str, changes: Any, message: str) -> Any:
        self.loaded = file.read()
        self.names.add(name)
        return SimpleNamespace(id=IMAGE_ID)

    def usage(self) -> Any:
        own = SimpleNamespace(size_bytes=4096, shared_bytes=1024)
        return SimpleNamespace(images={IMAGE_ID: own}, total_bytes=4096, layers={}, alone=set())

    def prune(self, ids: Sequence[str]) -> Any:
        return [("deleted", item) for item in ids], 4096

    def collect(self) -> int:
        return 0

    def save(self, names: Any, file: Any, kind: str = "") -> None:
        for _ in range(3):
            file.write(b"x" * 100_000)


class FakeVolumes:
    """Volumes by name."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    def list(self) -> Sequence[Any]:
        return list(self.known.values())

    def create(self, name: str, labels: dict[str, str]) -> Any:
        made = SimpleNamespace(name=name, path=Path("/v") / name, created_ns=1, labels=labels)
        return self.known.setdefault(name, made)

    def get(self, name: str) -> Any:
        if name not in self.known:
            raise NotFound(f"no such volume: '{name}'")
        return self.known[name]

    def remove(self, name: str, *, force: bool = False, used_by: str = "") -> None:
        if used_by:
            raise Conflict(f"volume '{name}' is in use by '{used_by}'")
        if self.known.pop(name, None) is None and not force:
            raise NotFound(f"no such volume: '{name}'")


class FakeEngine:
    """The interface of `proa.engine.engine.Engine`, without isolation."""

    def __init__(self) -> None:
        self.root = Path("/fake")
        self.images = FakeImages()
        self.volumes = FakeVolumes()
        self.events = Events()
        self.isolations = {
            "container": SimpleNamespace(check=lambda: []),
            "vm": SimpleNamespace(check=lambda: ["no QEMU"]),
        }
        self.instances: dict[str, FakeInstance] = {}
        self.execs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {"/etc/hostname": b"fake\n"}
        self.log_ended = threading.Event()

    # -- instances ----------------------------------------------------------------------------

    def create(self, name: str | None, body: Any) -> FakeInstance:
        self.images.inspect(str(body.get("Image") or ""))
        name = name or f"fake{len(self.instances)}"
        if any(item.name == name for item in self.instances.values()):
            raise Conflict(f'Conflict. The container name "/{name}" is already in use')
        made = FakeInstance(name, body)
        self.instances[made.id] = made
        self._emit(made, "create")
        return made

    def _emit(self, item: FakeInstance, action: str, **more: str) -> None:
        attributes = {**item.spec.labels, "image": item.image_name, "name": item.name, **more}
        self.events.emit("container", action, item.id, attributes)

    def get(self, reference: str) -> FakeInstance:
        for item in self.instances.values():
            if item.name == reference or item.id.startswith(reference):
                return item
        raise NotFound(f"no such instance '{reference}'")

    def list(self, all: bool = False, filters: Any = None) -> Any:
        found = [item for item in self.instances.values() if all or item.state == "running"]
        wanted = (filters or {}).get("status")
        return [item for item in found if not wanted or item.state in wanted][::-1]

    def start(self, reference: str) -> None:
        item = self.get(reference)
        if item.state == "running":
            raise NotModified("already running")
        command = item.spec.process.arguments
        if command[0] not in ("echo", "cat", "false", "sleep"):
            what = "permission denied" if command[0] == "denied" else "executable file not found"
            code = 126 if command[0] == "denied" else 127
            if item.spec.remove:
                self._drop(item)
            raise LaunchError(
                f'exec: "{command[0]}": {what} in $PATH',
                step=1, verb="exec", argument=command[0], errno=2, exit_code=code,
            )  # fmt: skip
        with item.lock:
            item.state, item.started_ns = "running", time.time_ns()
        self._emit(item, "start")
        threading.Thread(target=self._play, args=(item, command), daemon=True).start()

    def _play(self, item: FakeInstance, command: tuple[str, ...]) -> None:
        code = 1 if command[0] == "false" else 0
        if command[0] == "echo":
            item.write(1, " ".join(command[1:]).encode() + b"\n")
            item.write(2, b"done\n")
        elif command[0] == "cat":
            for client, _ in item.clients:
                while data := client.recv(65536):
                    item.write(1, data)
        elif command[0] == "sleep":
            return
        self.end(item, code)

    def end(self, item: FakeInstance, code: int) -> None:
        with item.changed:
            item.state, item.exit_code, item.finished_ns = "exited", code, time.time_ns()
            item.runs += 1
            for client, _ in item.clients:
                client.close()
            item.clients.clear()
            self._emit(item, "die", exitCode=str(code))
            if item.spec.remove:
                self._drop(item)
            item.changed.notify_all()

    def _drop(self, item: FakeInstance) -> None:
        with item.changed:
            self.instances.pop(item.id, None)
            item.removed = True
            item.changed.notify_all()
        self._emit(item, "destroy")

    def stop(self, reference: str, timeout: float | None = None, signal: str = "") -> None:
        item = self.get(reference)
        if item.state != "running":
            raise NotModified("not running")
        self.end(item, 143)

    def kill(self, reference: str, signal: str = "KILL") -> None:
        item = self.get(reference)
        if item.state != "running":
            raise Conflict(f"Container {item.id} is not running")
        self.end(item, 137)

    def restart(self, reference: str, timeout: float | None = None) -> None:
        item = self.get(reference)
        if item.state == "running":
            self.stop(reference)
        self.start(reference)

    def remove(self, reference: str, force: bool = False, volumes: bool = False) -> None:
        item = self.get(reference)
        if item.state == "running":
            if not force:
                raise Conflict("stop the container before removing or force remove")
            self.end(item, 137)
        self._drop(item)

    def rename(self, reference: str, new: str) -> None:
        self.get(reference).name = new

    def pause(self, reference: str) -> None:
        self.get(reference).state = "paused"

    def unpause(self, reference: str) -> None:
        self.get(reference).state = "running"

    def update(self, reference: str, body: Any) -> None:
        request.limits_update(body, self.get(reference).spec.limits)

    def wait_begin(self, reference: str, condition: str) -> Callable[[float | None], Any]:
        item = self.get(reference)
        runs = item.runs
        tests = {
            "not-running": lambda: item.state != "running",
            "next-exit": lambda: item.runs > runs or item.removed,
            "removed": lambda: item.removed,
        }

        def wait(timeout: float | None) -> tuple[int, str] | None:
            with item.changed:
                if not item.changed.wait_for(tests[condition], timeout):
                    return None
            return item.exit_code, item.error

        return wait

    # -- inside -------------------------------------------------------------------------------

    def attach(self, reference: str, connection: socket.socket, options: AttachOptions) -> None:
        item = self.get(reference)
        if item.name == "unattachable":
            raise Conflict("cannot attach")
        item.clients.append((connection, options))

    def resize(self, reference: str, rows: int, columns: int) -> None:
        self.get(reference)

    def exec_create(self, reference: str, config: Any) -> str:
        exec_id = secrets.token_hex(32)
        self.execs[exec_id] = {"ID": exec_id, "Running": False, "ExitCode": None, "body": config}
        return exec_id

    def exec_start(
        self, exec_id: str, connection: socket.socket | None, detach: bool, tty: bool
    ) -> None:
        facts = self.execs[exec_id]
        command = facts["body"]["Cmd"]
        if command[0] != "echo":
            facts["ExitCode"] = 127
            raise LaunchError(
                f'exec: "{command[0]}": executable file not found in $PATH',
                step=0, verb="exec", argument=command[0], errno=2, exit_code=127,
            )  # fmt: skip
        facts["ExitCode"] = 0
        if connection is not None:
            text = " ".join(command[1:]).encode() + b"\n"
            connection.sendall(text if tty else framed(1, text))
            connection.close()

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        if exec_id not in self.execs:
            raise NotFound(f"no exec '{exec_id}'")
        return self.execs[exec_id]

    def exec_resize(self, exec_id: str, rows: int, columns: int) -> None:
        self.exec_inspect(exec_id)

    def logs(self, reference: str, options: LogOptions) -> Iterator[tuple[int, bytes] | None]:
        item = self.get(reference)
        try:
            chosen = [e for e in item.log if (options.stdout if e[0] == 1 else options.stderr)]
            yield from chosen if options.tail is None else chosen[len(chosen) - options.tail :]
            while options.follow and item.state == "running":
                yield None
                time.sleep(0.05)
        finally:
            self.log_ended.set()

    def stats(self, reference: str) -> Any:
        return SimpleNamespace(
            read_ns=time.time_ns(), memory_bytes=10, memory_peak=20, memory_limit=1000, cpu_ns=5,
            system_cpu_ns=time.time_ns(), online_cpus=2, pids=1, read_bytes=0, write_bytes=0,
            networks={"eth0": (1, 2, 3, 4)},
        )  # fmt: skip

    def top(self, reference: str, ps_args: str) -> Any:
        return ["PID", "CMD"], [["1", ps_args]]

    def archive_stat(self, reference: str, path: str) -> dict[str, Any]:
        if path not in self.files and path not in ("/", "/tmp", "/tmp/"):
            raise NotFound(f"Could not find the file {path} in container {reference}")
        name = path.rpartition("/")[2] or "/"
        mode = 0o644 if path in self.files else 1 << 31 | 0o755
        return {"name": name, "size": 5, "mode": mode, "mtime": 1700000000.5,
                "linkTarget": ""}  # fmt: skip

    def archive_get(self, reference: str, path: str) -> Iterator[bytes]:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo(path.rpartition("/")[2])
            member.size = len(self.files[path])
            tar.addfile(member, io.BytesIO(self.files[path]))
        yield out.getvalue()

    def archive_put(self, reference: str, path: str, file: Any, **options: bool) -> None:
        with tarfile.open(fileobj=file, mode="r|") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is not None:
                    self.files[f"{path.rstrip('/')}/{member.name}"] = content.read()

    # -- telling ------------------------------------------------------------------------------

    def inspect(self, reference: str) -> dict[str, Any]:
        item = self.get(reference)
        return {
            "Id": item.id,
            "Name": f"/{item.name}",
            "Created": "2023-11-14T22:13:20Z",
            "Image": IMAGE_ID,
            "State": {
                "Status": item.state,
                "Running": item.state == "running",
                "Paused": item.state == "paused",
                "ExitCode": item.exit_code,
                "StartedAt": "2023-11-14T22:13:20Z",
            },
            "Config": item.body | {"HostConfig": None},
            "HostConfig": item.body.get("HostConfig") or {},
            "NetworkSettings": {"Ports": {}, "Networks": {}},
            "Mounts": [],
        }

    def summary(self, item: FakeInstance) -> dict[str, Any]:
        return {
            "Id": item.id, "Names": [f"/{item.name}"], "Image": item.image_name,
            "ImageID": IMAGE_ID, "Command": "x", "Created": 1700000000, "Ports": [],
            "Labels": {}, "State": item.state, "Status": item.state, "Mounts": [],
            "HostConfig": {"NetworkMode": "bridge"}, "NetworkSettings": {"Networks": {}},
        }  # fmt: skip

    def trace(self, reference: str) -> Any:
        return [("request", 1), ("exec", 5)]

    def usage(self, reference: str) -> dict[str, int]:
        return {"memory_bytes": 7}

    def networks_list(self) -> Sequence[dict[str, Any]]:
        return [networks.builtin(name) for name in networks.DRIVERS]

    def network(self, reference: str) -> dict[str, Any]:
        return networks.builtin(reference)

    def info(self) -> dict[str, Any]:
        return {
            "containers": len(self.instances), "running": 0, "paused": 0, "stopped": 0,
            "images": 1, "root": "/fake", "version": "0", "kernel": "6", "cpus": 2,
            "memory_bytes": 1 << 30, "admission": {}, "landlock": "abi 7",
        }  # fmt: skip
