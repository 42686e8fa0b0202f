"""The engine's process: `python -m proa.api.serve`.

Takes the root's lock, recovers what an earlier engine left, then serves its Unix socket, its own
or one that was passed to it (`LISTEN_FDS`), until SIGTERM.  Instances live on without it.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import logging
import os
import resource
import signal
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from proa.api.routes import Router
from proa.api.server import Server
from proa.api.table import ROUTES
from proa.engine import config
from proa.engine.config import Config
from proa.engine.engine import Engine
from proa.errors import Conflict, HostError, Invalid, ProaError

LOG = logging.getLogger("proa")
GROUP = "proa"
BACKLOG = 1024
FIRST_PASSED_DESCRIPTOR = 3
FINISH_SECONDS = 10.0
STACK_BYTES = 512 << 10


def socket_path(where: Config) -> Path:
    """PROA_HOST, else the root's own.  Raises Invalid for what is no Unix socket."""
    host = os.environ.get("PROA_HOST")
    path = host.removeprefix("unix://") if host else str(where.socket)
    if not path.startswith("/"):
        raise Invalid(f"PROA_HOST '{host}' is not a Unix socket", hint="use unix:///path/to/socket")
    return Path(path)


def main() -> int:
    """Run one engine until it is told to stop."""
    logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s", level="INFO")
    try:
        _run(config.load())
    except ProaError as error:
        hint = f"\n{error.hint}" if error.hint else ""
        print(f"proa: {error.message}{hint}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"proa: {error}", file=sys.stderr)
        return HostError.exit_code
    return 0


def _run(where: Config) -> None:
    path = socket_path(where)
    where.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    where.run.mkdir(mode=0o755, parents=True, exist_ok=True)
    _many_descriptors()
    threading.stack_size(STACK_BYTES)
    with _only_engine(where.root), contextlib.ExitStack() as stack:
        engine = Engine(where.root)
        stack.callback(engine.close)
        engine.recover()
        listener = stack.enter_context(_listener(path))
        server = Server(listener, Router(engine, ROUTES))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: server.stop())
        stack.enter_context(_pidfile(where.run / "engine.pid"))
        _tell_ready()
        LOG.info("serving '%s', root '%s'", path, where.root)
        server.run()
        if not server.finish(FINISH_SECONDS):
            LOG.warning("some requests were still at work")
        LOG.info("stopped; instances live on")


def _many_descriptors() -> None:
    """A connection and an instance hold a few each; the default of 1024 is soon used up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextlib.contextmanager
def _only_engine(root: Path) -> Iterator[None]:
    """Hold the root's lock; the kernel drops it whichever way we end."""
    lock = os.open(root / "engine.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another engine runs on root '{root}'") from None
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _listener(path: Path) -> Iterator[socket.socket]:
    """The socket that was passed to us, or one of our own at `path`, removed at the end."""
    passed = _passed_listener()
    if passed is not None:
        with passed:
            yield passed
        return
    with _bind(path) as listener:
        identity = path.stat().st_ino
        try:
            yield listener
        finally:
            with contextlib.suppress(OSError):
                if path.stat().st_ino == identity:
                    path.unlink()


def _passed_listener() -> socket.socket | None:
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        raise Invalid(f"LISTEN_FDS is '{count}': one socket is served")
    os.set_inheritable(FIRST_PASSED_DESCRIPTOR, False)
    listener = socket.socket(fileno=FIRST_PASSED_DESCRIPTOR)
    if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM:
        raise Invalid("the socket passed to the engine is no Unix stream socket")
    return listener


def _bind(path: Path) -> socket.socket:
    """Listen at `path`, for its user and group only; what a dead engine left is replaced."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(f"'{path}' is in the way: it is not a socket")
        if _answers(path):
            raise Conflict(f"something else serves '{path}'")
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen at '{path}': {error.strerror or error}") from None
    finally:
        os.umask(mask)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    listener.listen(BACKLOG)
    return listener


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _pidfile(path: Path) -> Iterator[None]:
    path.write_text(f"{os.getpid()}\n")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _tell_ready() -> None:
    """`READY=1` to whoever started us (systemd's protocol)."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(b"READY=1\n", address)


if __name__ == "__main__":
    sys.exit(main())
