"""Mounts made as descriptors, attached nowhere until somebody moves them (Linux 5.19 and newer).

A detached mount vanishes with its descriptor, so nothing made here can be left behind: the
engine passes the descriptors on to a place, whose mount namespace then owns the mounts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proa.errors import HostError
from proa.host import credentials, fscontext, kernel

OPEN_TREE_CLONE = 1
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
ATTR_IDMAP = 0x100000
MS_REC, MS_PRIVATE, MS_SLAVE = 0x4000, 0x40000, 0x80000
MS_RDONLY, MS_NODEV = 1, 4
CLONE_NEWNS = 0x20000

_MOVE_EMPTY_SOURCE = 4

# Nothing an image's file attributes say may redirect overlayfs elsewhere.
_OVERLAY_OPTIONS = {"index": "off", "metacopy": "off", "redirect_dir": "nofollow"}

_layers_must_be_attached = False  # learnt at the first overlay: Linux older than 6.15


class _MountAttributes(ctypes.Structure):
    _fields_ = [
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def open_tree(
    path: str | os.PathLike[str], *, recursive: bool = False, directory_fd: int = kernel.AT_FDCWD
) -> int:
    """A detached clone of the mount tree at `path`; an empty path means `directory_fd` itself."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | kernel.AT_EMPTY_PATH
    if recursive:
        flags |= kernel.AT_RECURSIVE
    try:
        return kernel.syscall(kernel.OPEN_TREE, directory_fd, os.fsencode(path), flags)
    except OSError as error:
        raise HostError(f"cannot open the tree at '{path}': {error.strerror}") from error


def set_attributes(
    fd: int,
    *,
    idmap_fd: int | None = None,
    readonly: bool = False,
    nodev: bool = False,
    recursive: bool = False,
) -> None:
    """Change a detached mount and cut it off from mount propagation.

    `idmap_fd` is a user namespace: ids on disk are then seen through its map.
    """
    wanted = ((readonly, ATTR_RDONLY), (nodev, ATTR_NODEV))
    attributes = _MountAttributes(propagation=MS_PRIVATE)
    attributes.set = sum(bit for on, bit in wanted if on)
    if idmap_fd is not None:
        attributes.set |= ATTR_IDMAP
        attributes.userns_fd = idmap_fd
    flags = kernel.AT_EMPTY_PATH | (kernel.AT_RECURSIVE if recursive else 0)
    try:
        kernel.syscall(
            kernel.MOUNT_SETATTR, fd, b"", flags,
            ctypes.byref(attributes), ctypes.sizeof(attributes),
        )  # fmt: skip
    except OSError as error:
        raise _attributes_error(fd, idmap_fd, error) from error


def _attributes_error(fd: int, idmap_fd: int | None, error: OSError) -> HostError:
    path = _describe(fd)
    if idmap_fd is not None and error.errno == errno.EINVAL:
        hint = "its file system, or one mounted below it, may not support idmapped mounts"
        return HostError(f"cannot map the ids of '{path}': {error.strerror}", hint=hint)
    return HostError(f"cannot set mount attributes of '{path}': {error.strerror}")


def _describe(fd: int) -> str:
    try:
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    except OSError:
        return f"descriptor {fd}"


def idmapped(path: str | os.PathLike[str], idmap_fd: int, *, readonly: bool = False) -> int:
    """A detached, private, nodev clone of `path` with ids mapped by the user namespace."""
    fd = open_tree(path)
    try:
        set_attributes(fd, idmap_fd=idmap_fd, readonly=readonly, nodev=True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def attach(fd: int, target: str | os.PathLike[str]) -> None:
    """Attach a detached mount at `target` in the calling thread's mount namespace."""
    try:
        _move(fd, os.fsencode(target))
    except OSError as error:
        raise HostError(f"cannot attach a mount at '{target}': {error.strerror}") from error


def _move(fd: int, target: bytes) -> None:
    kernel.syscall(kernel.MOVE_MOUNT, fd, b"", kernel.AT_FDCWD, target, _MOVE_EMPTY_SOURCE)


# -- user namespaces ----------------------------------------------------------------------------


def open_user_namespace(pid: int) -> int:
    """The user namespace of a process, for `set_attributes`."""
    try:
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(
            f"cannot open the user namespace of process '{pid}': {error.strerror}"
        ) from error


def user_namespace(base: int, count: int) -> int:
    """A user namespace nobody lives in, mapping `count` ids from 0 to `base`; caller closes it.

    Made by a short-lived process, hence slow (milliseconds): where a place with the same map
    exists, use `open_user_namespace` on it.
    """
    command = ["unshare", "--user", "cat"]  # cat answers once it is inside
    try:
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(b"\n")
            child.stdin.flush()
            if child.stdout.read(1) != b"\n":
                raise HostError("cannot make a user namespace: unshare --user failed")
            for kind in ("uid_map", "gid_map"):
                Path(f"/proc/{child.pid}/{kind}").write_text(f"0 {base} {count}\n")
            return open_user_namespace(child.pid)
    except OSError as error:
        raise HostError(f"cannot make a user namespace: {error.strerror}") from error


# -- new file systems ---------------------------------------------------------------------------


def fs(
    kind: str, options: Mapping[str, str | None] | None = None, *, attributes: int = ATTR_NODEV
) -> int:
    """A new detached mount of file system `kind`; an option whose value is None is a flag."""
    return fscontext.make(kind, list((options or {}).items()), attributes)


def overlay(
    lowers: Sequence[int], upper: int | None = None, work: int | None = None, *,
    volatile: bool = False,
) -> int:  # fmt: skip
    """A detached nodev overlay of these directories, topmost lower first.

    `upper` and `work` must be opened through one and the same mount.  Without `upper` the overlay
    is read-only.  `volatile` never syncs the upper layer: for instances whose files are thrown
    away (only a fresh work directory will do).  The descriptors may be closed afterwards.
    """
    layers = _Layers(tuple(lowers), upper, work, volatile)
    if upper is None:
        return _overlay(layers)
    # The kernel makes whiteouts and work files as the one who mounted.  Where the upper layer's
    # ids are mapped, our own cannot be written to it, so mount as its owner.
    owner = os.fstat(upper)
    with credentials.acting_as(owner.st_uid, owner.st_gid):
        fd = _overlay(layers)
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:  # what the kernel does when it cannot use `work`
        os.close(fd)
        raise HostError(f"the overlay over '{_describe(upper)}' would be read-only")
    return fd


@dataclass(frozen=True)
class _Layers:
    lowers: tuple[int, ...]
    upper: int | None
    work: int | None
    volatile: bool


def _overlay(layers: _Layers) -> int:
    global _layers_must_be_attached
    if not _layers_must_be_attached:
        try:
            return _overlay_detached(layers)
        except HostError as error:
            if not _is_errno(error, errno.EINVAL):
                raise
            refused = error
    try:
        fd = _overlay_attached(layers)
    except OSError as error:
        if not _layers_must_be_attached:
            raise refused from error
        raise HostError(f"cannot mount an overlay: {error.strerror}") from error
    _layers_must_be_attached = True
    return fd


def _is_errno(error: HostError, number: int) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == number


def _overlay_detached(layers: _Layers) -> int:
    options: list[tuple[str, str | None]] = [*_OVERLAY_OPTIONS.items()]
    options += [("lowerdir+", f"/proc/self/fd/{fd}") for fd in layers.lowers]
    attributes = ATTR_NODEV
    if layers.upper is None:
        attributes |= ATTR_RDONLY
    else:
        options.append(("upperdir", f"/proc/self/fd/{layers.upper}"))
        options.append(("workdir", f"/proc/self/fd/{layers.work}"))
    if layers.volatile:
        options.append(("volatile", None))
    return fscontext.make("overlay", options, attributes)


def _overlay_attached(layers: _Layers) -> int:
    """The same where layers must be attached in the caller's mount namespace (before Linux 6.15).

    That namespace is one of a thread's own, so it vanishes with the thread, whatever happens.
    """
    made: list[int] = []
    failed: list[OSError] = []

    def assemble() -> None:
        try:
            kernel.unshare(CLONE_NEWNS)  # implies CLONE_FS: a working directory of our own
            made.append(_mount_overlay(layers))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=assemble, name="overlay")  # inherits our credentials
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _mount_overlay(layers: _Layers) -> int:
    os.chdir("/proc/self/fd")  # layers have short names here, and mount(2) takes one page of them
    kernel.mount("", "/", "", MS_REC | MS_PRIVATE, "")
    for fd in layers.lowers:
        _move(fd, b"/sys")
    options = ["lowerdir=" + ":".join(map(str, layers.lowers))]
    options += [f"{key}={value}" for key, value in _OVERLAY_OPTIONS.items()]
    flags = MS_NODEV
    if layers.upper is None:
        flags |= MS_RDONLY
    else:
        root = _mount_root(layers.upper)
        try:
            _move(root, b"/sys")
        finally:
            os.close(root)
        options += [f"upperdir={layers.upper}", f"workdir={layers.work}"]
    if layers.volatile:
        options.append("volatile")
    kernel.mount("overlay", "/sys", "overlay", flags, ",".join(options))
    return open_tree("/sys")


def _mount_root(fd: int) -> int:
    """A new descriptor of the root of the detached mount that `fd` lies in: climbing ends there."""
    path, here = ".", os.fstat(fd)
    while True:
        path += "/.."
        above = os.stat(path, dir_fd=fd)
        if (above.st_dev, above.st_ino) == (here.st_dev, here.st_ino):
            return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        here = above


# -- the root file system of an instance --------------------------------------------------------


def layered(
    layers: Sequence[Path], writable: Path | None, idmap_fd: int, *, volatile: bool = False
) -> int:
    """A detached overlay of `layers`, topmost first, with ids mapped by the user namespace.

    `writable` holds the directories `upper` and `work`; None makes a read-only overlay.
    """
    if writable is None and len(layers) == 1:  # older kernels refuse to stack one layer
        return idmapped(layers[0], idmap_fd, readonly=True)
    with ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        lowers = [keep(idmapped(layer, idmap_fd, readonly=True)) for layer in layers]
        if writable is None:
            return overlay(lowers)
        top = keep(idmapped(writable, idmap_fd))
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        upper, work = (keep(os.open(name, flags, dir_fd=top)) for name in ("upper", "work"))
        return overlay(lowers, upper, work, volatile=volatile)
