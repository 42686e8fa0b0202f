"""Tiny images made on the fly: docker-archives of one layer, no tool and no network needed.

probe    one static binary: no shell, no /etc/passwd, no directory but the root
busy     busybox with a shell, users and groups, and the probe
"""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.paths import PROBE

BUSYBOX = Path("/bin/busybox")
PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:Alice:/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1000:\nstaff:x:50:alice\nvideo:x:44:alice\n"


@dataclass
class Layer:
    """One layer under construction."""

    buffer: io.BytesIO = field(default_factory=io.BytesIO)

    def __post_init__(self) -> None:
        self.tar = tarfile.open(fileobj=self.buffer, mode="w", format=tarfile.PAX_FORMAT)

    def add(self, path: str, kind: bytes, mode: int, **attributes: Any) -> None:
        """A member without content: directory, symlink, device, fifo."""
        member = tarfile.TarInfo(path.lstrip("/"))
        member.type, member.mode = kind, mode
        for name, value in attributes.items():
            setattr(member, name, value)
        self.tar.addfile(member)

    def directory(self, path: str, mode: int = 0o755, **owner: int) -> None:
        """A directory."""
        self.add(path, tarfile.DIRTYPE, mode, **owner)

    def symlink(self, path: str, target: str) -> None:
        """A symbolic link."""
        self.add(path, tarfile.SYMTYPE, 0o777, linkname=target)

    def file(self, path: str, data: bytes | str, mode: int = 0o644) -> None:
        """A regular file."""
        content = data.encode() if isinstance(data, str) else data
        member = tarfile.TarInfo(path.lstrip("/"))
        member.size, member.mode = len(content), mode
        self.tar.addfile(member, io.BytesIO(content))

    def bytes(self) -> bytes:
        """The finished tar."""
        self.tar.close()
        return self.buffer.getvalue()


def archive(name: str, *layers: bytes, **config: Any) -> bytes:
    """A docker-archive of these layers, named `name`; `config` is the OCI image's `config`, but for
    `architecture`."""
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    document = {
        "architecture": config.pop("architecture", "amd64"),
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": "2024-01-01T00:00:00Z"} for _ in layers],
    }
    raw = json.dumps(document).encode()
    identity = hashlib.sha256(raw).hexdigest()
    files = {f"{identity}.json": raw}
    files |= {f"{d}/layer.tar": layer for d, layer in zip(digests, layers, strict=True)}
    tags = [name if ":" in name else f"{name}:latest"]
    manifest = {
        "Config": f"{identity}.json",
        "RepoTags": tags,
        "Layers": [f"{digest}/layer.tar" for digest in digests],
    }
    files["manifest.json"] = json.dumps([manifest]).encode()
    outer = Layer()
    for path, data in files.items():
        outer.file(path, data)
    return outer.bytes()


def probe_layer() -> Layer:
    """A layer with the probe alone, to be added to."""
    layer = Layer()
    layer.file("probe", PROBE.read_bytes(), 0o755)
    return layer


def probe_image(name: str = "probe", **config: Any) -> bytes:
    """The image with one static binary in it."""
    return archive(name, probe_layer().bytes(), **({"Entrypoint": ["/probe"]} | config))


def busy_layer() -> Layer:
    """Busybox, its links, users, the usual directories, and the probe."""
    layer = probe_layer()
    for path in ("bin", "etc", "home", "dev", "proc", "sys", "usr", "usr/bin", "var", "srv"):
        layer.directory(path)
    layer.directory("tmp", 0o1777)
    layer.directory("root", 0o700)
    layer.directory("home/alice", uid=1000, gid=1000)
    layer.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    output = subprocess.run([BUSYBOX, "--list"], check=True, capture_output=True, text=True).stdout
    for applet in output.split():
        if applet != "busybox":
            layer.symlink(f"bin/{applet}", "busybox")
    layer.file("etc/passwd", PASSWD)
    layer.file("etc/group", GROUP)
    layer.file("etc/not-a-program", "plain text\n", 0o644)
    return layer


def busy_image(name: str = "busy", **config: Any) -> bytes:
    """The image with a shell."""
    defaults = {"Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"]}
    return archive(name, busy_layer().bytes(), **(defaults | config))
