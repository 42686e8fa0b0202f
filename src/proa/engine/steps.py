"""RUN steps of builds: each in a place of its own, made, launched and ended like an instance's.

A step has no record.  Should the engine be killed in the middle, its next start removes what no
instance owns: the place, the link, the directory.
"""

from __future__ import annotations

import os
import secrets
import socket
import stat
import struct
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proa import compile
from proa.agent import MAIN, Attach, Exit, Kind
from proa.agent import Launch as Flag
from proa.engine import changes, lifecycle, request, step_mounts
from proa.engine.core import Core
from proa.errors import Cancelled, IsolationError, Unsupported
from proa.host import files
from proa.image.build.step import Output, Step
from proa.image.layer import stubs, tree
from proa.isolation.base import Isolation, Running
from proa.resources import Launch, Link
from proa.spec import Limits, Process, Security, Spec

HOSTNAME = "build"
POLL_SECONDS = 0.1  # how late a cancelled step may notice
COVERED = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/etc/machine-id")
STUBS = ("/proc", "/sys", "/dev", *COVERED)  # what a place needs to be there
_FRAME = struct.Struct(">BxxxI")  # Docker's: stream, length
_CHUNK = 1 << 16


@dataclass(frozen=True)
class _Job:
    """One step at work."""

    id: str
    step: Step
    isolation: Isolation
    layers: tuple[Path, ...]
    upper: Path
    output: Output
    cancel: threading.Event


class Steps:
    """`proa.image.build.step.Runner` of an engine."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def run(
        self,
        step: Step,
        layers: Sequence[Path],
        upper: Path,
        output: Output,
        cancel: threading.Event,
    ) -> int:
        """Run a command over `layers`; its changes are in `upper/upper` afterwards."""
        core = self._core
        isolation = core.isolation(request.isolation_name(step.isolation))
        if step.network not in ("default", "none"):
            raise Unsupported(
                f"a step cannot have the network '{step.network}'",
                hint="use --network=default or none",
            )
        id = secrets.token_hex(32)
        directory = core.directory(id)
        with tree.reporting("run a step"), ExitStack() as undo:
            directory.mkdir(mode=0o700)
            undo.callback(files.remove_tree, directory)
            found = tuple(dict.fromkeys(layers)) or (_empty(directory),)
            job = _Job(id, step, isolation, found, upper, output, cancel)
            _seed(job)
            made = stubs.missing(job.layers, _targets(step))
            try:
                return self._run(job, directory)
            finally:
                gone = stubs.left(upper / "upper", job.layers, made)
                stubs.remove(upper / "upper", gone)

    def _run(self, job: _Job, directory: Path) -> int:
        core, step = self._core, job.step
        with ExitStack() as undo:
            mounts = undo.enter_context(
                step_mounts.prepared(
                    step.mounts, directory, shares_kernel=job.isolation.features.shares_kernel
                )
            )
            spec = _spec(step, job.isolation.name, mounts)
            links: tuple[Link, ...] = ()
            if step.network != "none":
                undo.callback(core.networks.release, job.id)
                links = (core.networks.link(job.id),)
            launch = Launch(
                id=job.id, directory=directory, limits=spec.limits,
                rootfs=undo.enter_context(core.images.stacked(job.layers, job.upper)),
                shares=mounts.shares, links=links, remove=True, once=True,
                architecture=step.architecture,
            )  # fmt: skip
            _check(job.cancel)
            running = job.isolation.start(launch)
            undo.callback(core.places.replenish)
            undo.callback(running.kill)
            exit = self._command(job, spec, running, links)
            if job.isolation.features.changes:
                device = job.isolation.features.changes
                changes.bring(running.agent(), device, job.upper / "upper", job.cancel)
            return exit.code

    def _command(self, job: _Job, spec: Spec, running: Running, links: tuple[Link, ...]) -> Exit:
        """Launch it and hand on what it writes, until it ends."""
        agent, sources = running.agent(), running.sources
        ended = threading.Event()
        exits: list[Exit] = []

        def on_exit(exit: Exit) -> None:
            if exit.id == MAIN:
                exits.append(exit)
                ended.set()

        agent.on_exit, agent.on_lost = on_exit, ended.set
        ours, theirs = socket.socketpair()
        with ours:
            try:
                flags = int(Attach.OUT | Attach.ERR | Attach.MUX)
                with theirs:
                    agent.begin(Kind.ATTACH, MAIN, b"", flags, (theirs.fileno(),))
                steps = compile.main_plan(
                    spec, sources, lifecycle.core_files(self._core, spec, links)
                )
                agent.launch(steps, sources.descriptors, int(Flag.STAY))
            finally:
                for descriptor in sources.descriptors:
                    os.close(descriptor)
            _pump(ours, job)
        while not ended.wait(POLL_SECONDS):
            _check(job.cancel)
        if not exits:
            raise IsolationError("the place of a step ended before its command")
        return exits[0]


def _check(cancel: threading.Event) -> None:
    if cancel.is_set():
        raise Cancelled("the build was cancelled")


def _pump(connection: socket.socket, job: _Job) -> None:
    """Docker's frames to the step's output, as they come."""
    connection.settimeout(POLL_SECONDS)
    buffer = bytearray()
    while True:
        _check(job.cancel)
        try:
            data = connection.recv(_CHUNK)
        except TimeoutError:
            continue
        if not data:
            return
        buffer += data
        while len(buffer) >= _FRAME.size:
            stream, length = _FRAME.unpack_from(buffer)
            end = _FRAME.size + length
            if len(buffer) < end:
                break
            job.output(stream, bytes(buffer[_FRAME.size : end]))
            del buffer[:end]


def _seed(job: _Job) -> None:
    """The upper's root shows through as `/`: owner and mode of the image's."""
    for name in ("upper", "work"):
        (job.upper / name).mkdir(mode=0o755, exist_ok=True)
    root = os.stat(job.layers[0])
    os.chown(job.upper / "upper", root.st_uid, root.st_gid)
    (job.upper / "upper").chmod(stat.S_IMODE(root.st_mode))


def _empty(directory: Path) -> Path:
    path = directory / "nothing"
    path.mkdir(mode=0o755)
    return path


def _targets(step: Step) -> tuple[str, ...]:
    return (*STUBS, *(mount.target for mount in step.mounts))


def _spec(step: Step, isolation: str, mounts: step_mounts.Prepared) -> Spec:
    return Spec(
        image="",
        isolation=isolation,
        process=Process(step.arguments, step.environment, step.directory or "/", step.user),
        hostname=HOSTNAME,
        network="none" if step.network == "none" else "bridge",
        mounts=mounts.mounts,
        limits=Limits(memory_bytes=step.memory_bytes, cpus=step.cpus),
        security=Security(new_privileges=True),  # `docker build` has sudo and the like work, too
        extra_hosts=tuple(request.extra_host(item) for item in step.hosts),
        shm_bytes=step.shm_bytes or Spec.shm_bytes,
    )
