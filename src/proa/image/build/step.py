"""One RUN of a build, and who can run it: the engine, which knows isolations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class StepMount:
    """A `RUN --mount`, resolved: what appears at `target` (absolute, links not followed out).

    kind     source
    bind     `layers` (topmost first) merged, `subpath` of them; writes are thrown away
    cache    `source`, a directory on the host that lasts; `sharing` is settled by the builder
    tmpfs    nothing; at most `size_bytes` (0: no limit of its own)
    secret   `source`, a file on the host, seen with `mode`, `uid`, `gid`
    ssh      `source`, an agent's socket on the host, seen with `mode`, `uid`, `gid`
    """

    kind: str
    target: str
    source: Path | None = None
    layers: tuple[Path, ...] = ()
    subpath: str = ""
    readonly: bool = False
    size_bytes: int = 0
    uid: int = 0
    gid: int = 0
    mode: int = 0o755


@dataclass(frozen=True)
class Step:
    """A command to run on top of layers; `directory` exists, `user` is as in `USER`."""

    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    directory: str = "/"
    user: str = ""
    mounts: tuple[StepMount, ...] = ()
    network: str = "default"  # default, none, host
    isolation: str = ""  # empty: the engine's default
    hosts: tuple[str, ...] = ()  # `name:address`, as --add-host
    shm_bytes: int = 0
    memory_bytes: int = 0
    cpus: float = 0
    architecture: str = ""  # of the programs in the layers; empty: this machine's


Output = Callable[[int, bytes], None]  # stream (1 or 2) and data


class Runner(Protocol):
    """Runs steps; each in a place of its own."""

    def run(
        self,
        step: Step,
        layers: Sequence[Path],
        upper: Path,
        output: Output,
        cancel: threading.Event,
    ) -> int:
        """Run over `layers` (topmost first); gives the exit code.

        `upper` is a directory holding `upper/` and `work/`; afterwards `upper/upper` has the
        changes as overlayfs keeps them, whatever the isolation.  Raises Cancelled when `cancel`
        is set meanwhile, LaunchError when the command cannot start.
        """
