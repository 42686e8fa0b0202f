"""Client of the monitor and of init: the frames of docs/protocol.md, one `Agent` per instance.

Any thread may ask; one `Dispatcher` thread reads every agent's socket, hands answers to whoever
waits and reports exits.  Frames come from inside an instance by way of the monitor: lengths are
bounded here too, and nothing in them is ever used as a host path.
"""

from __future__ import annotations

import array
import errno
import os
import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from proa.errors import IsolationError, LaunchError, Timeout
from proa.plan import Step, encode

HEADER = struct.Struct("<IBBHI")
PAYLOAD_MAXIMUM = 1 << 20
ANSWER_TIMEOUT_SECONDS = 60.0


class Kind(IntEnum):
    """Frame types."""

    SETUP = 1
    PLACE = 2
    LAUNCH = 3
    EXEC = 4
    ATTACH = 5
    SIGNAL = 6
    RESIZE = 7
    STDIN = 8
    CLOSE_STDIN = 9
    CREDIT = 10
    STATE = 11
    KILL = 12
    GETFD = 13
    QUIT = 14
    HOLD = 15
    QUIESCE = 16
    ADOPT = 17
    RESUME = 18
    DONE = 64
    PLACED = 65
    STARTED = 66
    FAILED = 67
    OUTPUT = 68
    EXIT = 69
    STATUS = 70
    HELLO = 71


class Launch(IntFlag):
    """Flags of LAUNCH and EXEC."""

    STDIN = 1
    TTY = 2
    LOG = 4
    JOIN = 8
    STAY = 16
    BESIDE = 32
    LOCAL = 0x80


class Attach(IntFlag):
    """Flags of ATTACH."""

    IN = 1
    OUT = 2
    ERR = 4
    MUX = 8
    CLOSE = 16
    HUP = 32


HOLD_LONGEST = 1
QUIESCE_SYNC = 1
HULL = 0
MAIN = 1
STILL_KINDS = (Kind.QUIESCE, Kind.ADOPT, Kind.RESUME)
PLAN_KINDS = (Kind.SETUP, Kind.PLACE, Kind.LAUNCH, Kind.EXEC)
ANSWERS = {Kind.PLACED: (Kind.PLACE,), Kind.STARTED: (Kind.LAUNCH, Kind.EXEC)}


@dataclass(frozen=True)
class Frame:
    """One frame as received, with the descriptors that came along."""

    kind: int
    flags: int
    argument: int
    id: int
    payload: bytes
    descriptors: tuple[int, ...] = ()


@dataclass(frozen=True)
class Exit:
    """A process ended; `code` is 128+signal when a signal did it."""

    id: int
    code: int
    signal: int
    finished_ns: int
    oom: bool


@dataclass(frozen=True)
class Status:
    """One process in a STATE answer; `phase` 1 waiting place, 2 running, 3 exited."""

    id: int
    phase: int
    pid: int
    code: int
    signal: int
    finished_ns: int


class Waiter:
    """One request's place in the queue of answers."""

    __slots__ = ("answers", "kind", "statuses")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.answers: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self.statuses: list[Status] = []


class Agent:
    """A connection to one instance's monitor.

    `on_exit` is called in the dispatcher's thread for every EXIT, `on_lost` once when the
    connection ends.  Both must return quickly.
    """

    def __init__(
        self,
        connection: socket.socket,
        on_exit: Callable[[Exit], None] = lambda exit: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.on_exit = on_exit
        self.on_lost = on_lost
        self._socket = connection
        self._buffer = bytearray()
        self._descriptors: list[int] = []
        self._pending: list[tuple[int, Waiter]] = []
        self._lock = threading.Lock()
        self._hello = threading.Event()
        self.lost = False

    def fileno(self) -> int:
        """Descriptor of the connection."""
        return self._socket.fileno()

    # -- requests ---------------------------------------------------------------------------

    def setup(self, steps: tuple[Step, ...]) -> None:
        """Run a plan in the guest's init itself."""
        self.finish(self.begin(Kind.SETUP, HULL, encode(steps)))

    def place(
        self,
        steps: tuple[Step, ...],
        descriptors: Sequence[int] = (),
        flags: int = 0,
        process: int = MAIN,
    ) -> int:
        """Fork the waiting child of a place; returns its pid as the receiver sees it."""
        waiter = self.begin(Kind.PLACE, process, encode(steps), flags, descriptors)
        return pid_of(self.finish(waiter))

    def launch(
        self, steps: tuple[Step, ...], descriptors: Sequence[int] = (), flags: int = 0
    ) -> int:
        """Let the waiting child become the main process (the monitor's own with LOCAL)."""
        return pid_of(self.finish(self.begin(Kind.LAUNCH, MAIN, encode(steps), flags, descriptors)))

    def exec(self, process: int, steps: tuple[Step, ...], flags: int = Launch.JOIN) -> int:
        """Run a further process, by default inside the place."""
        return pid_of(self.finish(self.begin(Kind.EXEC, process, encode(steps), flags)))

    def attach(self, process: int, connection: int, flags: int, detach_keys: bytes = b"") -> None:
        """Let the monitor pump a process's streams to and from a stream socket (its own copy)."""
        self.finish(self.begin(Kind.ATTACH, process, detach_keys, flags, (connection,)))

    def signal(self, process: int, number: int, *, everyone: bool = False) -> None:
        """Send a signal to one process, or to all of the place."""
        self._send(Kind.SIGNAL, process, b"", int(everyone), number)

    def resize(self, process: int, rows: int, columns: int) -> None:
        """Set a terminal's size."""
        self._send(Kind.RESIZE, process, struct.pack("<HH", rows, columns))

    def close_stdin(self, process: int) -> None:
        """End a process's standard input."""
        self._send(Kind.CLOSE_STDIN, process)

    def state(self) -> list[Status]:
        """Every process the monitor knows."""
        waiter = self.begin(Kind.STATE, HULL, b"")
        self.finish(waiter)
        return waiter.statuses

    def get_descriptor(self, index: int = 0) -> int:
        """A descriptor the monitor keeps for the engine; the first is a vm's QMP connection."""
        waiter = Waiter(Kind.GETFD)
        self._ask(waiter, HULL, HEADER.pack(0, Kind.GETFD, 0, index, HULL), ())
        frame = self.finish(waiter)
        if not frame.descriptors:
            raise IsolationError("the monitor keeps no descriptor")
        return frame.descriptors[0]

    def hold(self, descriptors: Sequence[int]) -> None:
        """Let the monitor keep these open until the instance ends."""
        if descriptors:
            self.finish(self.begin(Kind.HOLD, HULL, b"", 0, descriptors))

    def keep(self, descriptor: int) -> None:
        """Let the monitor have a copy until it ends itself; does not wait for its answer.

        The last close of a tap waits for an RCU grace period: thus it is not QEMU's, whose end an
        engine waits for, but the monitor's, whose end nobody does.
        """
        self.begin(Kind.HOLD, HULL, b"", HOLD_LONGEST, (descriptor,))

    def quiesce(self, timeout_seconds: float, *, sync: bool = False) -> None:
        """Let the guest stand still: its place is frozen, nothing is on the way to or from it.

        With `sync` its disks have all that was written.

        Until `resume`, or the end of this connection.  Raises LaunchError while something starts.
        """
        flags = QUIESCE_SYNC if sync else 0
        self.finish(self.begin(Kind.QUIESCE, HULL, b"", flags), timeout_seconds)

    def adopt(self, *, logged: bool) -> None:
        """Take over a copied guest's processes; its place stays frozen until `resume`."""
        self.finish(self.begin(Kind.ADOPT, HULL, b"", Launch.LOG if logged else 0))

    def resume(self) -> None:
        """Let a guest that stands still go on."""
        self.finish(self.begin(Kind.RESUME, HULL, b""))

    def kill(self) -> None:
        """End everything; the exit record says 137."""
        self._send(Kind.KILL, HULL)

    def quit(self) -> None:
        """Let a spare place end without a record."""
        self._send(Kind.QUIT, HULL)

    def expect_hello(self) -> None:
        """Forget that init greeted: another one is about to."""
        self._hello.clear()

    def wait_hello(self, timeout_seconds: float) -> None:
        """Wait until a booting guest's init is up.  Raises Timeout or IsolationError."""
        if not self._hello.wait(timeout_seconds):
            raise Timeout(f"init did not answer within {timeout_seconds:g} seconds")
        if self.lost:
            raise IsolationError("the place ended before its init answered")

    def begin(
        self,
        kind: Kind,
        process: int,
        payload: bytes,
        flags: int = 0,
        descriptors: Sequence[int] = (),
    ) -> Waiter:
        """Send a request without waiting; give the result to `finish` (requests pipeline)."""
        waiter = Waiter(kind)
        message = HEADER.pack(len(payload), kind, flags, 0, process) + payload
        self._ask(waiter, process, message, descriptors)
        return waiter

    def _ask(
        self, waiter: Waiter, process: int, message: bytes, descriptors: Sequence[int]
    ) -> None:
        with self._lock:
            if self.lost:
                raise IsolationError("the instance's monitor is gone")
            self._pending.append((process, waiter))
            self._write(message, descriptors)

    def finish(self, waiter: Waiter, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> Frame:
        """Wait for a request's answer.  Raises LaunchError, IsolationError or Timeout."""
        try:
            frame = waiter.answers.get(timeout=timeout_seconds)
        except queue.Empty:
            raise Timeout(
                f"no answer to {waiter.kind.name} in {timeout_seconds:g} seconds"
            ) from None
        if frame is None:
            raise IsolationError(f"the instance ended before it answered {waiter.kind.name}")
        if frame.kind == Kind.FAILED:
            raise _launch_error(frame.payload)
        return frame

    def _send(
        self, kind: Kind, process: int, payload: bytes = b"", flags: int = 0, argument: int = 0
    ) -> None:
        with self._lock:
            if self.lost:
                raise IsolationError("the instance's monitor is gone")
            self._write(HEADER.pack(len(payload), kind, flags, argument, process) + payload, ())

    def _write(self, data: bytes, descriptors: Sequence[int]) -> None:
        try:
            ancillary = []
            if descriptors:
                packed = array.array("i", descriptors)
                ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, packed)]
            sent = self._socket.sendmsg([data], ancillary)
            if sent < len(data):
                self._socket.sendall(memoryview(data)[sent:])
        except OSError as error:
            raise IsolationError(
                f"the instance's monitor does not listen: {error.strerror}"
            ) from error

    # -- the dispatcher's side --------------------------------------------------------------

    def receive(self) -> bool:
        """Read what is there and deliver it; false when the connection has ended."""
        try:
            data, descriptors, _, _ = socket.recv_fds(
                self._socket, 1 << 16, 4, socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            data, descriptors = b"", []
        self._descriptors.extend(descriptors)
        if not data:
            return False
        self._buffer += data
        try:
            self._deliver_complete()
        except ValueError:
            return False
        return True

    def _deliver_complete(self) -> None:
        offset = 0
        while len(self._buffer) - offset >= HEADER.size:
            length, kind, flags, argument, process = HEADER.unpack_from(self._buffer, offset)
            if length > PAYLOAD_MAXIMUM:
                raise ValueError("frame too long")
            end = offset + HEADER.size + length
            if len(self._buffer) < end:
                break
            payload = bytes(self._buffer[offset + HEADER.size : end])
            offset = end
            self._deliver(Frame(kind, flags, argument, process, payload))
        del self._buffer[:offset]

    def _deliver(self, frame: Frame) -> None:
        if frame.kind == Kind.EXIT:
            code, number, finished = struct.unpack_from("<IIQ", frame.payload)
            self.on_exit(Exit(frame.id, code, number, finished, bool(frame.flags & 1)))
        elif frame.kind == Kind.HELLO:
            self._hello.set()
        elif frame.kind == Kind.STATUS:
            self._add_status(frame)
        elif frame.kind in (Kind.DONE, Kind.PLACED, Kind.STARTED, Kind.FAILED):
            self._answer(frame)

    def _add_status(self, frame: Frame) -> None:
        fields = struct.unpack_from("<IIIQ", frame.payload)
        status = Status(frame.id, frame.argument, *fields)
        with self._lock:
            waiters = [w for _, w in self._pending if w.kind == Kind.STATE]
        if waiters:
            waiters[0].statuses.append(status)

    def _answer(self, frame: Frame) -> None:
        if frame.kind == Kind.DONE or frame.argument in STILL_KINDS:
            kinds: Iterable[int] = (frame.argument,)
        else:
            kinds = ANSWERS.get(Kind(frame.kind), PLAN_KINDS)
        if frame.kind == Kind.DONE and frame.argument == Kind.GETFD:
            frame = Frame(
                frame.kind,
                frame.flags,
                frame.argument,
                frame.id,
                frame.payload,
                tuple(self._descriptors),
            )
            self._descriptors = []
        with self._lock:
            for index, (process, waiter) in enumerate(self._pending):
                if process == frame.id and waiter.kind in kinds:
                    del self._pending[index]
                    break
            else:
                return
        waiter.answers.put(frame)

    def end(self) -> None:
        """The connection is over: fail whoever waits, tell the owner."""
        with self._lock:
            if self.lost:
                return
            self.lost = True
            pending, self._pending = self._pending, []
        for _, waiter in pending:
            waiter.answers.put(None)
        self._hello.set()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._socket.close()
        self.on_lost()


class Dispatcher:
    """One thread that reads every agent's socket."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._thread.start()

    def add(self, agent: Agent) -> None:
        """Begin to read this agent."""
        self._selector.register(agent, selectors.EVENT_READ, agent)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                agent: Agent = key.data
                if not agent.receive():
                    self._selector.unregister(agent)
                    agent.end()


def pid_of(frame: Frame) -> int:
    """The pid in a PLACED or STARTED frame."""
    return int(struct.unpack_from("<I", frame.payload)[0])


def _launch_error(payload: bytes) -> LaunchError:
    """The typed error of a FAILED record, with Docker's words and exit codes."""
    step, number = struct.unpack_from("<II", payload)
    verb, _, rest = payload[8:].partition(b"\0")
    name = verb.decode("utf-8", "replace")
    argument = rest.rstrip(b"\0").decode("utf-8", "replace")
    exit_code = 125
    reason = os.strerror(number).lower()
    missing = number in (errno.ENOENT, errno.ENOTDIR)
    if name in ("exec", "cwd"):
        exit_code = 127 if missing else 126
    if name == "cwd":
        message = f"working directory '{argument}': {reason}"
    elif name == "exec":
        if missing and "/" not in argument:
            reason = "executable file not found in $PATH"
        if number == errno.ENOEXEC:
            reason += ": for another processor, or a script that does not begin with '#!'"
        message = f"exec: '{argument}': {reason}"
    elif name == "user" and number in (errno.EINVAL, errno.ERANGE):
        message = f"unable to find user or group '{argument}' in the image"
    else:
        message = f"step {step} ({name} '{argument}') failed: {reason}"
    return LaunchError(
        message, step=step, verb=name, argument=argument, errno=number, exit_code=exit_code
    )
