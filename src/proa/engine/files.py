"""Copy files into and out of an instance: always from inside, so its links lead nowhere else.

A stopped instance is brought up as an idle place for the time of the copy.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, cast

from proa import compile
from proa.agent import MAIN
from proa.engine import lifecycle, strangers
from proa.engine.core import Core
from proa.engine.execs import run_builtin
from proa.engine.instance import Instance
from proa.engine.tree import Entry, Reader, from_tar, to_tar
from proa.errors import Conflict, Corrupt, Invalid, NotFound, ProaError, Timeout, Unsupported
from proa.isolation.base import Running
from proa.isolation.vm.whole.qga import Qga
from proa.resources import Launch

SETTLE_SECONDS = 60.0
GO_MODE_BITS = (
    (stat.S_IFDIR, 1 << 31), (stat.S_IFLNK, 1 << 27), (stat.S_IFIFO, 1 << 25),
    (stat.S_IFSOCK, 1 << 24), (stat.S_IFBLK, 1 << 26), (stat.S_IFCHR, 1 << 26 | 1 << 21),
)  # fmt: skip


@contextmanager
def place_of(core: Core, instance: Instance) -> Iterator[Running]:
    """The running place, or an idle one made of the stopped instance's files."""
    running = instance.running
    if running is not None:
        yield running
        return
    if instance.spec.hardware.disk:
        raise Conflict(
            f"the files of '{instance.name}' are its own system's, which does not run",
            hint=f"proa start {instance.name}",
        )
    with instance.lock:
        if instance.record.removing or instance.live:
            raise Conflict(f"instance '{instance.name}' is changing its state; try again")
        record, spec = instance.record, instance.spec
        rootfs = core.images.writable(core.images.get(record.image_id), core.directory(record.id))
        with ExitStack() as undo:
            shares = lifecycle.shares(core, instance)
            idle = core.isolation(spec.isolation).start(
                Launch(record.id, core.directory(record.id), rootfs, shares=shares, idle=True)
            )
            undo.callback(idle.kill)
            try:
                idle.agent().launch(compile.idle_plan(spec, idle.sources), idle.sources.descriptors)
            finally:
                for descriptor in idle.sources.descriptors:
                    os.close(descriptor)
            yield idle
            _end_idle(idle)


def _end_idle(running: Running) -> None:
    """Let it end by itself, so that what was written reaches its disk."""
    ended = threading.Event()
    agent = running.agent()
    agent.on_exit = lambda exit: ended.set() if exit.id == MAIN else None
    agent.signal(MAIN, signal.SIGTERM)
    if not ended.wait(SETTLE_SECONDS):
        raise Timeout(f"the copy was not written out within {SETTLE_SECONDS:g} seconds")


def archive_stat(core: Core, instance: Instance, path: str) -> dict[str, Any]:
    """Docker's path stat: name, size, mode (Go's bits), mtime in seconds, linkTarget."""
    with place_of(core, instance) as running:
        if other := _stranger(running):
            return _told(_entry_of(strangers.facts(other, _inside(path))), path)
        return _stat(core, instance, running, path)


def _stranger(running: Running) -> Qga | None:
    """The other agent of a system ours does not run on; None where ours is."""
    try:
        running.enter()
    except Unsupported:
        return strangers.agent_of(running)
    return None


def _entry_of(found: tarfile.TarInfo) -> Entry:
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}
    mode = found.mode | kinds.get(found.type, stat.S_IFREG)
    mtime_ns = int(found.mtime) * 1_000_000_000
    return Entry(found.name, found.linkname, mode, 0, 0, 0, 0, 0, max(found.size, 0), mtime_ns)


def _stat(core: Core, instance: Instance, running: Running, path: str) -> dict[str, Any]:
    with _stream(run_builtin(core, instance, running, ("stat", _inside(path)))) as stream:
        return _told(_first(Reader(stream), path), path)


def _told(entry: Entry, path: str) -> dict[str, Any]:
    kind = stat.S_IFMT(entry.mode)
    bits = sum(bit for mode, bit in GO_MODE_BITS if mode == kind)
    for mode, bit in ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20)):
        bits |= bit if entry.mode & mode else 0
    return {
        "name": os.path.basename(path.rstrip("/")) or "/", "size": entry.size,
        "mode": bits | (entry.mode & 0o777), "mtime": entry.mtime_ns / 1e9,
        "linkTarget": entry.link,
    }  # fmt: skip


def _first(reader: Reader, path: str) -> Entry:
    try:
        entry = reader.entry()
    except NotFound:
        entry = None
    if entry is None:
        raise NotFound(f"Could not find the file {path} in container")
    return entry


def archive_get(core: Core, instance: Instance, path: str) -> Iterator[bytes]:
    """A tar of a path.  Raises NotFound before the first byte."""
    with place_of(core, instance) as running:
        if other := _stranger(running):
            yield from strangers.archive(other, _inside(path))
            return
        _stat(core, instance, running, path)
        with _stream(run_builtin(core, instance, running, ("tree-out", _inside(path)))) as stream:
            yield from to_tar(Reader(stream))


def archive_put(core: Core, instance: Instance, path: str, archive: BinaryIO) -> None:
    """Unpack a tar into the directory `path`.  Raises NotFound, Invalid or the instance's error."""
    with place_of(core, instance) as running:
        if other := _stranger(running):
            strangers.put(other, _inside(path), archive)
            return
        found = _stat(core, instance, running, path.rstrip("/") + "/.")
        if not found["mode"] & 1 << 31:
            raise Invalid(f"extraction point is not a directory: {path}")
        connection = run_builtin(core, instance, running, ("tree-in", _inside(path)))
        with _stream(connection) as stream:
            _feed(connection, archive, Reader(stream))


def _feed(connection: socket.socket, archive: BinaryIO, answer: Reader) -> None:
    """Send the records while the answer is awaited: the instance may fail long before the end."""
    problems: list[ProaError] = []

    def await_answer() -> None:
        try:
            answer.entry()
        except Corrupt:
            problems.append(Corrupt("the instance ended while files were copied in"))
        except ProaError as error:
            problems.append(error)
        if problems:
            connection.shutdown(socket.SHUT_RDWR)

    waiter = threading.Thread(target=await_answer, name="copy-answer")
    waiter.start()
    try:
        for data in from_tar(archive):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the answer says why
    except ProaError:
        connection.shutdown(socket.SHUT_RDWR)
        raise
    finally:
        waiter.join()
    if problems:
        raise problems[0]


def _inside(path: str) -> str:
    return path if path.startswith("/") else "/" + path


@contextmanager
def _stream(connection: socket.socket) -> Iterator[BinaryIO]:
    with connection, connection.makefile("rb", buffering=1 << 16) as stream:
        yield cast(BinaryIO, stream)
