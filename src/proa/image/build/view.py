"""The merged files of layers during a build: detached mounts, gone with their descriptor."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from proa.host import mounts
from proa.image.layer import tree


@contextmanager
def merged(layers: Sequence[Path], nothing: Path) -> Iterator[int]:
    """The root of these layers, topmost first, to be read; `nothing` is an empty directory."""
    with ExitStack() as opened:
        paths = list(dict.fromkeys(layers))
        if len(paths) < 2:  # an overlay wants two, and a layer alone would show its whiteouts
            paths.append(nothing)
        root = mounts.overlay(_opened(opened, paths))
        opened.callback(os.close, root)
        yield root


@contextmanager
def writable(layers: Sequence[Path], directory: Path) -> Iterator[int]:
    """The root of these layers; what is written goes to `directory/upper`."""
    with ExitStack() as opened:
        lowers = list(dict.fromkeys(layers))
        upper = prepare(lowers, directory)
        if not lowers:
            yield _opened(opened, [upper])[0]
            return
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        fds = [os.open(directory / name, flags) for name in ("upper", "work")]
        for fd in fds:
            opened.callback(os.close, fd)
        root = mounts.overlay(_opened(opened, lowers), fds[0], fds[1], volatile=True)
        opened.callback(os.close, root)
        yield root


def prepare(layers: Sequence[Path], directory: Path) -> Path:
    """Make `upper` and `work` in `directory`; the root of the layers shows through `upper`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    upper, work = directory / "upper", directory / "work"
    upper.mkdir(mode=0o755)
    work.mkdir(mode=0o700)
    if layers:
        root = os.stat(layers[0])
        os.chown(upper, root.st_uid, root.st_gid)
        upper.chmod(stat.S_IMODE(root.st_mode))
        os.utime(upper, ns=(root.st_mtime_ns, root.st_mtime_ns))
    else:
        upper.chmod(0o755)
        os.utime(upper, ns=(0, 0))
    return upper


def _opened(opened: ExitStack, paths: Sequence[Path]) -> list[int]:
    fds: list[int] = []
    for path in paths:
        fds.append(os.open(path, tree.DIRECTORY))
        opened.callback(os.close, fds[-1])
    return fds
