"""What is asked of a build, and what it tells while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class BuildRequest:
    """One build.

    `context` is a directory on this host (what came by the API was unpacked into it); `None`
    means an empty one.  `containerfile` is its text, `name` what errors call it.  Secrets are
    files' contents by id; `ssh` are agents' sockets by id; `contexts` are named contexts
    (`--build-context name=...`): a directory, or `docker-image://reference`.
    `logins` are texts of X-Registry-Auth by registry, for bases.
    `epoch_seconds` is SOURCE_DATE_EPOCH: no timestamp in the output is later.
    """

    containerfile: bytes
    name: str = "Containerfile"
    context: Path | None = None
    names: tuple[str, ...] = ()
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ssh: Mapping[str, Path] = field(default_factory=dict)
    hosts: tuple[str, ...] = ()
    logins: Mapping[str, str] = field(default_factory=dict, repr=False)
    ignore: bytes | None = None  # the `.dockerignore` that counts; None: looked for in the context
    isolation: str = ""
    network: str = "default"
    platform: str = ""
    pull: bool = False
    use_cache: bool = True
    squash: bool = False
    epoch_seconds: int | None = None
    shm_bytes: int = 0
    memory_bytes: int = 0
    cpus: float = 0


@dataclass(frozen=True)
class Vertex:
    """A piece of the build begins, or ends: like BuildKit's vertex.

    `number` counts from 1 in the order of the plan; `name` is what people read
    (`[build 2/5] RUN make`).  `state` is started, done, cached, failed or cancelled.
    """

    number: int
    name: str
    state: str
    seconds: float = 0
    error: str = ""


@dataclass(frozen=True)
class Output:
    """What a RUN wrote; `stream` is 1 or 2."""

    number: int
    stream: int
    data: bytes


@dataclass(frozen=True)
class Transfer:
    """Bytes moved for a vertex: context, a pulled layer, an added URL, the written layer."""

    number: int
    id: str
    current: int
    total: int = 0


Report = Callable[[Vertex | Output | Transfer], None]
