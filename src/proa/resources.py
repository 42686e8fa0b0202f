"""Nouns the engine acquires from services and hands to an isolation: layer 0, no behaviour.

An isolation realises each in its own way: a `Rootfs` becomes an overlay mount or a pair of disks,
a `Share` a bind mount or a 9p folder, a `Link` a veth end or a tap.  No service learns which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from proa.plan import Step
from proa.spec import Hardware, Limits


class Rootfs(Protocol):
    """An image's file system with a writable layer of one instance, in two views."""

    @property
    def image_id(self) -> str:
        """Digest of the image's configuration, `sha256:...`."""

    @property
    def layers(self) -> tuple[Path, ...]:
        """Unpacked read-only layers, topmost first, ids as in the image (0 is root)."""

    @property
    def upper(self) -> Path:
        """Directory holding `upper/` and `work/` for overlayfs, on one file system."""

    def disk(self) -> Path:
        """The merged layers as one read-only EROFS file, made now when not cached."""


@dataclass(frozen=True)
class Share:
    """A host directory or file that appears at `target` inside.

    With `layers` (topmost first) it is those, merged; `source` then holds `upper` and `work` for
    what is written, unless it is read-only.  `inner` is what of it appears: a relative path
    without links, empty for all.
    """

    source: Path
    target: str
    readonly: bool = False
    layers: tuple[Path, ...] = ()
    inner: str = ""


@dataclass(frozen=True)
class Link:
    """One network interface; the network service allocates it, the isolation plugs it.

    `host_name` is the interface's name on the host side (at most 15 bytes), `address` is
    `a.b.c.d/prefix`.
    """

    name: str
    host_name: str
    bridge: str
    mac: str
    address: str
    gateway: str
    mtu: int = 1500


@dataclass(frozen=True)
class Disk:
    """A further disk of a vm, /dev/`name` there: a file or block device, `format` raw or qcow2."""

    name: str
    path: Path
    readonly: bool = False
    format: str = "raw"


@dataclass(frozen=True)
class Launch:
    """Everything an isolation needs to make one place; all of it already acquired."""

    id: str
    directory: Path
    rootfs: Rootfs
    limits: Limits = Limits()
    shares: tuple[Share, ...] = ()
    links: tuple[Link, ...] = ()
    hold: tuple[int, ...] = ()  # descriptors the monitor keeps open for the instance's lifetime
    sysctls: tuple[tuple[str, str], ...] = ()
    remove: bool = False  # the writable layer is thrown away at the end
    once: bool = False  # for one command: nothing is kept ready for a next, nor written durably
    idle: bool = False  # only for work on its files, with nothing of the engine's over them
    hardware: Hardware = field(default_factory=Hardware)
    terminal: bool = False  # the main process gets one
    hostname: str = ""
    ssh_key: str = ""  # public, one line: who may log in to a system of its own
    architecture: str = ""  # of the image's programs, in its words; empty when it does not say


@dataclass(frozen=True)
class Sources:
    """Where the isolation put what it was given, in words of the launch plan.

    `root` and each of `shares` name an `attach` source: `fd:N` (the Nth descriptor sent with the
    plan) or a path inside the place.  `before` are steps to run ahead of `root`.  `descriptors`
    are the descriptors to send, in the order `fd:N` counts them.

    A place whose main process is the isolation's own has its whole `plan`, and `flags` of LAUNCH.
    """

    root: str
    shares: tuple[str, ...] = ()
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    descriptors: tuple[int, ...] = ()
    plan: tuple[Step, ...] = ()
    flags: int = 0
