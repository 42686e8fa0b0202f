"""An engine on demand: start one when none answers, and wait until it is ready.

The engine gets its listening socket from us, as from systemd (`LISTEN_FDS`), and tells us
`READY=1` over a datagram socket (`NOTIFY_SOCKET`).  A pidfd tells us when it dies first.  A lock
file makes sure that of many callers one starts it.
"""

from __future__ import annotations

import os
import sys
import time

from proa.client import address
from proa.client.connection import Connection
from proa.errors import EngineUnavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import NoReturn

READY_TIMEOUT_SECONDS = 60.0
LOG_NAME = "engine.log"
GROUP = "proa"
BACKLOG = 1024
_FIRST_PASSED_DESCRIPTOR = 3
SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def connect() -> Connection:
    """A connection to the engine, started now when none answers.  Raises EngineUnavailable."""
    path = address.socket_path()
    try:
        return Connection(path)
    except EngineUnavailable:
        if not address.may_start():
            raise
    start()
    return Connection(path)


def log_path() -> str:
    """Where an engine started on demand writes what it has to say."""
    return os.path.join(address.root(), LOG_NAME)


def start() -> bool:
    """Start an engine and wait until it is ready; False when one was there already."""
    import fcntl

    run_directory = address.run_directory()
    try:
        os.makedirs(address.root(), 0o711, exist_ok=True)
        os.makedirs(run_directory, 0o755, exist_ok=True)
        lock = os.open(
            os.path.join(run_directory, "start.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise EngineUnavailable(
            f"cannot start an engine at '{error.filename}': {(error.strerror or '').lower()}",
            hint="run as root, or set PROA_ROOT to a directory of your own",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if answers():
            return False
        _start_locked()
        return True
    finally:
        os.close(lock)


def answers() -> bool:
    """Whether something accepts connections at the engine's socket."""
    try:
        Connection(address.socket_path()).close()
    except EngineUnavailable:
        return False
    return True


def _start_locked() -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind("")  # the kernel picks an abstract name
        name = ready.getsockname()
        listener = _listen(address.socket_path())
        with listener:
            pid = _fork(listener, "@" + os.fsdecode(name[1:]))
        pidfd = os.pidfd_open(pid)
        try:
            _await_ready(ready, pid, pidfd)
        finally:
            os.close(pidfd)


def _listen(path: str) -> socket.socket:
    """The engine's listening socket, only for its user; a dead engine's is replaced."""
    import socket

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        mask = os.umask(0o117)
        try:
            listener.bind(path)
        finally:
            os.umask(mask)
        _give_to_group(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise EngineUnavailable(
            f"cannot listen at '{path}': {(error.strerror or str(error)).lower()}"
        ) from error
    return listener


def _clear(path: str) -> None:
    """Remove a dead engine's socket; anything else that is there stays, and binding will fail."""
    import stat

    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return


def _give_to_group(path: str) -> None:
    """Members of the group `proa`, where there is one, may use the engine."""
    import grp

    try:
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    except (KeyError, PermissionError):
        return


def _fork(listener: socket.socket, notify: str) -> int:
    """Fork the engine, detached from our terminal, session and directory."""
    log = os.open(log_path(), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        try:
            _become_engine(listener.fileno(), log, notify)
        finally:
            os._exit(127)
    os.close(log)
    return pid


def _become_engine(listener: int, log: int, notify: str) -> NoReturn:
    os.setsid()
    os.chdir("/")
    os.umask(0o022)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if listener == _FIRST_PASSED_DESCRIPTOR:
        os.set_inheritable(listener, True)
    else:
        os.dup2(listener, _FIRST_PASSED_DESCRIPTOR)
    environment = dict(os.environ)
    environment["PYTHONPATH"] = SOURCE
    environment["LISTEN_FDS"] = "1"
    environment["LISTEN_PID"] = str(os.getpid())
    environment["NOTIFY_SOCKET"] = notify
    os.execve(sys.executable, [sys.executable, "-m", "proa.api.serve"], environment)


def _await_ready(ready: socket.socket, pid: int, pidfd: int) -> None:
    import select

    poll = select.poll()
    poll.register(ready, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while True:
        left = deadline - time.monotonic()
        events = dict(poll.poll(max(0.0, left) * 1000))
        if ready.fileno() in events:
            if b"READY=1" in ready.recv(4096).split(b"\n"):
                return
        elif pidfd in events:
            raise _failure(f"the engine ended ({_status(pid)})")
        elif left <= 0:
            raise _failure(f"the engine was not ready after {READY_TIMEOUT_SECONDS:.0f} s")


def _status(pid: int) -> str:
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _failure(what: str) -> EngineUnavailable:
    last = last_log_line()
    return EngineUnavailable(f"{what}{': ' + last if last else ''}", hint=f"see {log_path()}")


def last_log_line() -> str:
    """The last line of the engine's log that says something."""
    try:
        with open(log_path(), "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 8192))
            lines = log.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
