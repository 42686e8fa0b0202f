"""Exec: further processes inside a running instance's own place."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from proa import compile
from proa.agent import Attach, Exit, Kind, pid_of
from proa.agent import Launch as Flag
from proa.engine import instance as states
from proa.engine import strangers
from proa.engine.core import Core
from proa.engine.fields import Fields
from proa.engine.instance import Instance
from proa.engine.request import merge_environment
from proa.errors import (
    Conflict,
    Invalid,
    IsolationError,
    LaunchError,
    NotFound,
    ProaError,
    Unsupported,
)
from proa.isolation.base import Running
from proa.plan import encode
from proa.spec import Process

ASKED_SECONDS = 10.0
KEPT = 256  # execs remembered of one running instance


@dataclass
class Exec:
    """One exec: asked for, started, ended."""

    id: str
    instance: Instance
    process: Process
    streams: int  # Attach flags asked for at creation
    detach_keys: str = ""
    number: int = 0
    pid: int = 0
    started: bool = False
    exit_code: int | None = None
    raw: bool = False  # its output comes as it is, not multiplexed
    told: Callable[[int], None] = lambda code: None
    asked: threading.Event = field(default_factory=threading.Event)  # its monitor knows of it
    ended: threading.Event = field(default_factory=threading.Event)


class Execs:
    """All execs of this engine's lifetime, by id."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._by_id: dict[str, Exec] = {}
        self._by_number: dict[tuple[str, int], Exec] = {}
        core.exec_ended = self._ended

    def create(self, instance: Instance, body: Any) -> str:
        """Prepare an exec.  Raises Conflict unless the instance runs."""
        _running(instance)
        self._prune(instance)
        made = Exec(secrets.token_hex(32), instance, *_parse(instance, body))
        self._by_id[made.id] = made
        instance.exec_ids.append(made.id)
        self._core.emit(
            instance, f"exec_create: {' '.join(made.process.arguments)}", execID=made.id
        )
        return made.id

    def get(self, exec_id: str) -> Exec:
        """By id.  Raises NotFound."""
        if exec_id not in self._by_id:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self._by_id[exec_id]

    def start(self, exec_id: str, connection: socket.socket | None) -> None:
        """Run it; a connection, when given, is taken over.  Raises LaunchError."""
        found = self.get(exec_id)
        instance = found.instance
        with instance.lock:
            running = _running(instance)
            if found.started:
                raise Conflict(f"exec '{exec_id[:12]}' has already run")
            found.started = True
            found.number, instance.next_process = instance.next_process, instance.next_process + 1
            self._by_number[instance.id, found.number] = found
        try:
            self._run(found, running, connection)
        except ProaError as error:
            found.exit_code = error.exit_code if isinstance(error, LaunchError) else 126
            found.ended.set()
            raise
        if connection is not None:
            connection.close()
        self._core.emit(
            instance, f"exec_start: {' '.join(found.process.arguments)}", execID=exec_id
        )

    def _run(self, found: Exec, running: Running, connection: socket.socket | None) -> None:
        process = found.process
        try:
            agent, flags = running.enter()
        except Unsupported:
            self._run_elsewhere(found, running, connection)
            return
        flags |= Flag.TTY if process.terminal else 0
        flags |= Flag.STDIN if process.stdin and connection is not None else 0
        if connection is not None:
            streams = found.streams | (0 if process.terminal or found.raw else Attach.MUX)
            if found.streams & Attach.IN and not process.terminal:
                streams |= Attach.CLOSE
            agent.begin(
                Kind.ATTACH,
                found.number,
                found.detach_keys.encode(),
                int(streams),
                (connection.fileno(),),
            )
        steps = encode(compile.exec_plan(found.instance.spec, process))
        waiter = agent.begin(Kind.EXEC, found.number, steps, flags)
        found.asked.set()
        found.pid = pid_of(agent.finish(waiter))

    def _run_elsewhere(
        self, found: Exec, running: Running, connection: socket.socket | None
    ) -> None:
        """In a system our agent does not run on, by another's."""

        def ended(code: int) -> None:
            exit = Exit(found.number, code, 0, time.time_ns(), False)
            self._core.exec_ended(found.instance.id, exit)

        muxed = not (found.process.terminal or found.raw)
        job = strangers.Job(found.process, connection, muxed, ended)
        strangers.start(strangers.agent_of(running), job)
        found.asked.set()

    def probe(
        self, place: Running, found: Exec, connection: socket.socket, told: Callable[[int], None]
    ) -> None:
        """Run one of the engine's own in a place that runs anyway; it is not woken.

        `connection` gets what it writes, `told` is called with its exit code.  Raises Conflict.
        """
        instance, found.told, found.started = found.instance, told, True
        with instance.lock:
            if resting(instance, place):
                raise Conflict(f"Container {instance.id} is not running")
            found.number, instance.next_process = instance.next_process, instance.next_process + 1
            self._by_id[found.id] = self._by_number[instance.id, found.number] = found
        command = " ".join(found.process.arguments)
        self._core.emit(instance, f"exec_create: {command}", execID=found.id)
        self._run(found, place, connection)
        self._core.emit(instance, f"exec_start: {command}", execID=found.id)

    def drop(self, found: Exec) -> None:
        """Forget one of the engine's own."""
        self._by_id.pop(found.id, None)
        self._by_number.pop((found.instance.id, found.number), None)

    def resize(self, exec_id: str, rows: int, columns: int) -> None:
        """Set the terminal's size; right after the start, as clients do, waits for it."""
        found = self.get(exec_id)
        if not found.asked.wait(ASKED_SECONDS):
            raise Conflict(f"exec '{exec_id[:12]}' has not been started")
        _running(found.instance).agent().resize(found.number, rows, columns)

    def inspect(self, exec_id: str) -> dict[str, Any]:
        """Docker's ExecInspect.

        A client asks when its stream has ended, which the engine may not have heard yet: the
        monitor tells of the exit before it answers anything else.
        """
        found = self.get(exec_id)
        running = found.instance.running
        if found.started and found.exit_code is None and running is not None:
            with suppress(IsolationError):
                running.agent().state()
        process = found.process
        return {
            "ID": found.id, "ContainerID": found.instance.id, "Pid": found.pid,
            "Running": found.started and found.exit_code is None, "ExitCode": found.exit_code,
            "OpenStdin": process.stdin, "OpenStdout": bool(found.streams & Attach.OUT),
            "OpenStderr": bool(found.streams & Attach.ERR), "CanRemove": False, "DetachKeys": "",
            "ProcessConfig": {
                "entrypoint": process.arguments[0], "arguments": list(process.arguments[1:]),
                "tty": process.terminal, "user": process.user, "privileged": False,
            },
        }  # fmt: skip

    def forget(self, instance: Instance) -> None:
        """Drop the execs of an instance that ended."""
        for exec_id in instance.exec_ids:
            found = self._by_id.pop(exec_id, None)
            if found is not None:
                self._by_number.pop((instance.id, found.number), None)
        instance.exec_ids = []

    def _prune(self, instance: Instance) -> None:
        """Forget the oldest that have ended: an instance may run for years."""
        for exec_id in instance.exec_ids[:-KEPT]:
            found = self._by_id.get(exec_id)
            if found is None or found.ended.is_set():
                instance.exec_ids.remove(exec_id)
                self._by_id.pop(exec_id, None)
                if found is not None:
                    self._by_number.pop((instance.id, found.number), None)

    def _ended(self, instance_id: str, exit: Exit) -> None:
        found = self._by_number.get((instance_id, exit.id))
        if found is not None:
            found.exit_code = exit.code
            found.ended.set()
            found.told(exit.code)
            self._core.emit(found.instance, "exec_die", execID=found.id, exitCode=str(exit.code))


def resting(instance: Instance, place: Running) -> bool:
    """Whether a place is not to be disturbed: paused, asleep, coming up or gone."""
    awake = instance.held is place and instance.state == states.RUNNING
    return not awake or instance.standby.dozing


def _running(instance: Instance) -> Running:
    if instance.state == states.PAUSED:
        raise Conflict(f"Container {instance.name} is paused, unpause the container before exec")
    if instance.running is None or instance.state != states.RUNNING:
        raise Conflict(f"Container {instance.id} is not running")
    return instance.running


def _parse(instance: Instance, body: Any) -> tuple[Process, int, str]:
    wanted = Fields(body)
    command = wanted.strings("Cmd")
    if not command:
        raise Invalid("No exec command specified")
    if wanted.boolean("Privileged"):
        raise Unsupported("a privileged exec is not supported")
    main = instance.spec.process
    process = Process(
        arguments=command,
        environment=merge_environment(main.environment, wanted.strings("Env")),
        directory=wanted.text("WorkingDir") or main.directory,
        user=wanted.text("User") or main.user,
        groups=main.groups,
        terminal=wanted.boolean("Tty"),
        stdin=wanted.boolean("AttachStdin"),
    )
    streams = (
        (wanted.boolean("AttachStdin"), Attach.IN),
        (wanted.boolean("AttachStdout"), Attach.OUT),
        (wanted.boolean("AttachStderr"), Attach.ERR),
    )
    return process, sum(int(flag) for on, flag in streams if on), wanted.text("DetachKeys")


def run_builtin(
    core: Core, instance: Instance, running: Running, argv: tuple[str, ...]
) -> socket.socket:
    """Run one of the native program's commands in the place; the socket is its stdin and stdout."""
    ours, theirs = socket.socketpair()
    with instance.lock:
        number, instance.next_process = instance.next_process, instance.next_process + 1
    try:
        agent, entrance = running.enter()
        flags = int(Attach.IN | Attach.OUT | Attach.CLOSE)
        agent.begin(Kind.ATTACH, number, b"", flags, (theirs.fileno(),))
        agent.exec(number, compile.builtin_plan(*argv), int(entrance | Flag.STDIN))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours
