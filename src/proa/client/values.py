"""What the SDK takes and gives: frozen data."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.client.build import CONTAINERFILES
from proa.errors import NotFound


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
class Progress:
    """One step of a pull or push; `id` is a layer's or a tag's, sizes are bytes, 0 for unknown."""

    status: str
    id: str = ""
    current: int = 0
    total: int = 0


@dataclass(frozen=True)
class Options:
    """How to run: the parts of a create request people use.

    `platform` is what the image must be for, like `linux/arm64`.  `machine` is the request's `Proa`
    object (Disk, Accelerator, ...); `more` is merged into HostConfig.
    """

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
    platform: str | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
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
            "Proa": dict(self.machine) or None,
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


@dataclass(frozen=True)
class BuildOptions:
    """How to build; `containerfile` is its path, by default `Containerfile` or `Dockerfile`.

    `contexts` are directories, or `docker-image://name`; `secrets` are contents by id, `ssh`
    sockets of agents by id.
    """

    containerfile: Path | None = None
    names: Sequence[str] = ()
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    ssh: Mapping[str, Path] = field(default_factory=dict)
    hosts: Sequence[str] = ()
    isolation: str = ""
    network: str = ""
    platform: str = ""
    pull: bool = False
    no_cache: bool = False
    squash: bool = False

    def order(self, context: Path | None) -> dict[str, Any]:
        """The API's order, the Containerfile read.  Raises NotFound."""
        order: dict[str, Any] = {
            "names": list(self.names),
            "secrets": {name: b64encode(data).decode() for name, data in self.secrets.items()},
            "ssh": {name: str(path) for name, path in self.ssh.items()},
            "hosts": list(self.hosts),
        }
        for name in ("arguments", "labels", "annotations", "contexts"):
            order[name] = dict(getattr(self, name))
        for name in ("target", "isolation", "network", "platform", "pull", "no_cache", "squash"):
            order[name] = getattr(self, name)
        here = Path() if context is None else context
        usual = [here / name for name in CONTAINERFILES]
        tried = [self.containerfile] if self.containerfile else usual
        path = next((path for path in tried if path.is_file()), None)
        if path is None:
            raise NotFound(f"no Containerfile '{tried[0]}'")
        order |= {"containerfile": path.read_text("utf-8", "surrogateescape"), "name": path.name}
        if context is not None:
            order["context"] = str(context.resolve())
            for ignore in (path.with_name(f"{path.name}.dockerignore"), context / ".dockerignore"):
                if ignore.is_file():
                    order["ignore"] = ignore.read_text("utf-8", "surrogateescape")
                    break
        return order
