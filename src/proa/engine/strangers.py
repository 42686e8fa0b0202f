"""Systems our agent does not run on, reached by QEMU's guest agent: commands and files, no more.

A command's input is all given at its start and its output comes at its end; there is no terminal,
no other user and no working directory.  Files go as tar archives, which the system's own tar makes.
"""

from __future__ import annotations

import io
import posixpath
import secrets
import socket
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from proa.errors import Invalid, IsolationError, LaunchError, NotFound, ProaError, Unsupported
from proa.isolation.base import Running
from proa.isolation.vm.whole.qga import Ended, Qga
from proa.isolation.vm.whole.running import WholeMachine
from proa.spec import Process

INPUT_MAXIMUM = 16 << 20
ARCHIVE_MAXIMUM = 4 << 30
TAR_SECONDS = 600.0
_OUT, _ERR = 1, 2
_PIECE = 1 << 16
_HINT = "QEMU's guest agent can only run a command; put Proa's own into the system for more"


@dataclass(frozen=True)
class Job:
    """A command to run: whose streams `connection` are (muxed or not), and whom to tell its end."""

    process: Process
    connection: socket.socket | None
    muxed: bool
    ended: Callable[[int], None]


def agent_of(running: Running) -> Qga:
    """The guest agent in there.  Raises Unsupported when there is none."""
    found = running.guest_agent() if isinstance(running, WholeMachine) else None
    if found is None:
        raise Unsupported("no guest agent answers in there")
    return found


# -- commands -------------------------------------------------------------------------------------


def start(guest: Qga, job: Job) -> None:
    """Run a command in the background.  Raises Unsupported for what cannot be, LaunchError."""
    process = job.process
    for wanted, what in (
        (process.terminal, "a terminal"), (process.user not in ("", "0", "root"), "another user"),
        (process.directory not in ("", "/"), "a working directory"),
    ):  # fmt: skip
        if wanted:
            raise Unsupported(f"a command in this system cannot have {what}", hint=_HINT)
    if process.stdin and job.connection is not None:
        work: Callable[[], Ended] = partial(_fed, guest, process, job.connection.dup())
    else:
        pid = _begin(guest, process, b"")
        work = partial(guest.wait, pid)
    connection = None if job.connection is None else job.connection.dup()
    worker = threading.Thread(target=_follow, args=(work, job, connection), daemon=True)
    worker.start()


def _fed(guest: Qga, process: Process, connection: socket.socket) -> Ended:
    with connection:
        stdin = _all_input(connection)
    return guest.wait(_begin(guest, process, stdin))


def _begin(guest: Qga, process: Process, stdin: bytes) -> int:
    try:
        return guest.begin(process.arguments, process.environment, stdin)
    except IsolationError as error:
        code = 127 if "No such file" in error.message else 126
        raise LaunchError(
            error.message, step=0, verb="exec", argument=process.arguments[0], errno=0,
            exit_code=code,
        ) from error  # fmt: skip


def _all_input(connection: socket.socket) -> bytes:
    data = bytearray()
    while piece := connection.recv(_PIECE):
        data += piece
        if len(data) > INPUT_MAXIMUM:
            raise Unsupported(f"more than '{INPUT_MAXIMUM}' bytes of input", hint=_HINT)
    return bytes(data)


def _follow(work: Callable[[], Ended], job: Job, connection: socket.socket | None) -> None:
    try:
        done = work()
    except (ProaError, OSError) as error:
        code = error.exit_code if isinstance(error, LaunchError) else 125
        done = Ended(code, b"", f"{error}\n".encode(), cut=False)
    if connection is not None:
        with connection, suppress(OSError):
            for stream, data in ((_OUT, done.output), (_ERR, done.errors)):
                if data:
                    header = struct.pack(">BxxxI", stream, len(data)) if job.muxed else b""
                    connection.sendall(header + data)
            connection.shutdown(socket.SHUT_RDWR)
    job.ended(done.code)


# -- files ----------------------------------------------------------------------------------------


def archive(guest: Qga, path: str) -> Iterator[bytes]:
    """A tar of a path.  Raises NotFound before the first byte."""
    parent, name = posixpath.split(path.rstrip("/") or "/")
    with _scratch(guest) as scratch:
        _tar(guest, path, "-cf", scratch, "-C", parent or "/", "--", name or ".")
        yield from guest.read_file(scratch, ARCHIVE_MAXIMUM)


def facts(guest: Qga, path: str) -> tarfile.TarInfo:
    """What a path is.  Raises NotFound."""
    parent, name = posixpath.split(path.rstrip("/") or "/")
    with _scratch(guest) as scratch:
        words = ("-cf", scratch, "--no-recursion", "-C", parent or "/", "--", name or ".")
        _tar(guest, path, *words)
        head = next(guest.read_file(scratch, ARCHIVE_MAXIMUM), b"")
    try:
        with tarfile.open(fileobj=io.BytesIO(head), mode="r:", errorlevel=0) as opened:
            found = opened.next()
    except tarfile.TarError:
        found = None
    if found is None:
        raise NotFound(f"Could not find the file {path} in container")
    return found


def put(guest: Qga, path: str, data: BinaryIO) -> None:
    """Unpack a tar into a directory."""
    if not facts(guest, path).isdir():
        raise Invalid(f"extraction point is not a directory: {path}")
    with _scratch(guest) as scratch:
        guest.write_file(scratch, iter(lambda: data.read(_PIECE), b""))
        _tar(guest, path, "-xf", scratch, "-C", path)


def _tar(guest: Qga, path: str, *words: str) -> None:
    done = guest.run(["tar", *words], seconds=TAR_SECONDS)
    if done.code:
        said = " ".join(done.errors.decode("utf-8", "replace").split())[:200]
        if "No such file" in said or "Cannot stat" in said:
            raise NotFound(f"Could not find the file {path} in container")
        raise IsolationError(f"tar in there failed: {said}")


@contextmanager
def _scratch(guest: Qga) -> Iterator[str]:
    """The name of a file for one archive, of no one else's knowing."""
    name = f"/tmp/.proa-{secrets.token_hex(8)}"
    try:
        yield name
    finally:
        with suppress(ProaError):
            guest.run(["rm", "-f", "--", name])
