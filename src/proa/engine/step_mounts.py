"""The mounts of one RUN: shares of the host, tmpfs, secrets, an ssh agent's socket."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from proa.engine.relay import relay
from proa.errors import Invalid, NotFound, Unsupported
from proa.image.build.step import StepMount
from proa.image.layer.merged import Merged
from proa.resources import Share
from proa.spec import Mount


@dataclass(frozen=True)
class Prepared:
    """What goes into a spec and into a launch; the shares are in the order of their mounts."""

    mounts: tuple[Mount, ...]
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class _Maker:
    """Makes one mount; `directory` is its own, on the host, and goes with the step."""

    directory: Path
    shares_kernel: bool
    undo: ExitStack


@contextmanager
def prepared(
    mounts: Sequence[StepMount], directory: Path, *, shares_kernel: bool
) -> Iterator[Prepared]:
    """Everything these mounts need on the host, below `directory`, until the end.

    Raises Unsupported for an ssh agent's socket where the kernel is not shared.
    """
    with ExitStack() as undo:
        made: list[Mount] = []
        shares: list[Share] = []
        for number, mount in enumerate(mounts):
            own = directory / f"mount{number}"
            own.mkdir(mode=0o700)
            share = _KINDS[mount.kind](mount, _Maker(own, shares_kernel, undo))
            if share is None:
                size = f",size={mount.size_bytes}" if mount.size_bytes else ""
                made.append(Mount("tmpfs", "", mount.target, options=f"mode=1777{size}"))
            else:
                made.append(Mount("bind", str(share.source), mount.target, share.readonly))
                shares.append(share)
        yield Prepared(tuple(made), tuple(shares))


def _bind(mount: StepMount, maker: _Maker) -> Share:
    """A part of layers, found without leaving them whatever links they have (CVE-2024-1753)."""
    with Merged(mount.layers) as files:
        inner, lost = files.resolve(os.fsencode(mount.subpath))
    if lost:
        raise NotFound(f"no '{mount.subpath}' to bind at '{mount.target}'")
    for name in ("upper", "work"):
        (maker.directory / name).mkdir()
    status = os.stat(mount.layers[0])
    os.chown(maker.directory / "upper", status.st_uid, status.st_gid)
    (maker.directory / "upper").chmod(status.st_mode & 0o7777)
    path = os.fsdecode(inner)
    return Share(maker.directory, mount.target, mount.readonly, mount.layers, path)


def _cache(mount: StepMount, maker: _Maker) -> Share:
    return Share(_source(mount), mount.target, mount.readonly)


def _secret(mount: StepMount, maker: _Maker) -> Share:
    """A copy with the owner and mode asked for; the file it came from is not seen."""
    path = maker.directory / "secret"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(_source(mount).read_bytes())
        os.fchown(file.fileno(), mount.uid, mount.gid)
        os.fchmod(file.fileno(), mount.mode & 0o7777)
    return Share(path, mount.target, readonly=True)


def _ssh(mount: StepMount, maker: _Maker) -> Share:
    if not maker.shares_kernel:
        raise Unsupported(
            "an ssh agent's socket does not reach into a virtual machine",
            hint="run this step as a container, or give the key as a secret",
        )
    path = maker.directory / "agent"
    maker.undo.enter_context(relay(path, _source(mount)))
    os.chown(path, mount.uid, mount.gid)
    path.chmod(mount.mode & 0o7777)
    return Share(path, mount.target)


def _tmpfs(mount: StepMount, maker: _Maker) -> None:
    return None


_KINDS: dict[str, Callable[[StepMount, _Maker], Share | None]] = {
    "bind": _bind, "cache": _cache, "secret": _secret, "ssh": _ssh, "tmpfs": _tmpfs,
}  # fmt: skip


def _source(mount: StepMount) -> Path:
    if mount.source is None:
        raise Invalid(f"the {mount.kind} mount at '{mount.target}' has no source")
    return mount.source
