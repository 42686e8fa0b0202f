"""Start, end, stop, kill, pause and remove an instance: the only place that wires all services.

What `start` acquires is held by one ExitStack until the process runs; from then on release is
derived from the record, is idempotent, and does not care which engine acquired it.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from proa import compile
from proa.agent import MAIN, Exit, Kind
from proa.agent import Launch as Flag
from proa.engine import additions, admission, links, machines, ssh, whole
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import PINNED, Instance
from proa.errors import (
    Conflict,
    HostError,
    Invalid,
    IsolationError,
    LaunchError,
    NoSpace,
    NotModified,
    ProaError,
)
from proa.host import files
from proa.isolation.base import Running
from proa.resources import Launch, Link, Share
from proa.spec import Spec

KILL_PATIENCE_SECONDS = 10.0

log = logging.getLogger(__name__)


# -- start ------------------------------------------------------------------------------------


def start(core: Core, instance: Instance) -> None:
    """Bring an instance up; returns when its command runs.  Raises any typed error."""
    with instance.lock:
        if instance.record.removing:
            raise Conflict(f"instance '{instance.name}' is being removed")
        if instance.live:
            raise NotModified(f"instance '{instance.name}' is already running")
        if instance.state == states.SUSPENDED:
            raise Conflict(f"instance '{instance.name}' is suspended", hint="proa resume")
        before = instance.state
        _begin(core, instance)
        try:
            admission.admit(core, instance, instance.spec)
            _acquire_and_launch(core, instance)
        except ProaError as error:
            _start_failed(core, instance, before, error)
            raise
        finally:
            instance.admitted = False
            core.places.replenish()
        links.changed(core, tuple(instance.record.interfaces))
        core.emit(instance, "start")  # before its end can be told
    instance.notify()


def _begin(core: Core, instance: Instance) -> None:
    record = instance.record
    record.trace = []
    instance.mark("request")
    record.state, record.exit_code, record.error = states.STARTING, 0, ""
    record.oom_killed, record.place, record.saved, record.foreign = False, "", {}, {}
    record.health = {}
    (core.directory(instance.id) / PINNED).unlink(missing_ok=True)
    core.save(instance)


def _acquire_and_launch(core: Core, instance: Instance) -> None:
    record = instance.record
    isolation = core.isolation(instance.spec.isolation)
    with ExitStack() as undo:
        launch = acquire(core, instance, undo)
        try:
            running = isolation.start(launch)
        finally:
            for descriptor in launch.hold:
                os.close(descriptor)
        undo.callback(running.kill)
        instance.mark("place", running.placed_ns)
        if not instance.spec.hardware.disk:  # else a system of its own is yet to boot
            instance.mark("init")
        tie(core, instance, running)
        core.save(instance)
        whole_machine = bool(instance.spec.hardware.disk)  # which QEMU is launched for
        if not whole_machine:
            additions.plug_all(instance, running)
        _launch(core, instance, running, launch.links)
        if whole_machine:
            additions.plug_all(instance, running)
        running.launched(launch.limits)
        serve_addresses(core, instance)
        record.state, record.started_ns = states.RUNNING, time.time_ns()
        record.facts = running.facts
        core.save(instance)
        undo.pop_all()


def acquire(core: Core, instance: Instance, undo: ExitStack) -> Launch:
    """What an instance starts with; `undo` gives it back.  The caller closes `hold`."""
    record, spec = instance.record, instance.spec
    rootfs = whole.rootfs(core.images, instance, core.directory(record.id))
    connections = links.acquire(core, instance, undo)
    hold = links.publish(core, instance, connections) if spec.ports else ()
    return Launch(
        id=record.id, directory=core.directory(record.id), rootfs=rootfs, limits=spec.limits,
        shares=shares(core, instance), links=connections, hold=hold, sysctls=spec.sysctls,
        remove=spec.remove, hardware=spec.hardware, terminal=spec.process.terminal,
        architecture=_architecture(core, rootfs.image_id), hostname=spec.hostname,
        ssh_key=ssh.public_key(core) if spec.hardware.disk else "",
    )  # fmt: skip


def _architecture(core: Core, image_id: str) -> str:
    return core.images.get(image_id).details.architecture if image_id else ""


def tie(core: Core, instance: Instance, running: Running) -> None:
    """Tie a running place to its instance; from here on its end is noticed."""
    instance.running = running
    core.tied(instance, running)
    instance.record.saved = running.saved
    instance.record.place = str(running.saved["place"])
    agent = running.agent()
    agent.on_exit = lambda exit: _on_exit(core, instance, running, exit)
    agent.on_lost = lambda: core.later(lambda: ended(core, instance, running, None))


def _launch(core: Core, instance: Instance, running: Running, linked: tuple[Link, ...]) -> None:
    spec, sources, agent = instance.spec, running.sources, running.agent()
    link_log(core, instance)
    flags = int(Flag.LOG) | sources.flags
    if spec.process.terminal:
        flags |= Flag.TTY
    if spec.process.stdin:
        flags |= Flag.STDIN
    written = links.with_names(core, instance, core_files(core, instance.spec, linked))
    steps = sources.plan or compile.main_plan(spec, sources, written)
    try:
        waiting, instance.waiting = instance.waiting, []
        for attachment in waiting:
            agent.begin(
                Kind.ATTACH,
                MAIN,
                attachment.detach_keys,
                attachment.flags,
                (attachment.descriptor,),
            )
            os.close(attachment.descriptor)
        agent.launch(steps, sources.descriptors, flags)
    finally:
        for descriptor in sources.descriptors:
            os.close(descriptor)
    instance.mark("exec")


def serve_addresses(core: Core, instance: Instance) -> None:
    """A system of its own asks for its address; without one it runs all the same."""
    if not instance.spec.hardware.disk:
        return
    way_out = True  # by the first card that has one
    for link in links.present(core, instance).values():
        with suppress(HostError):
            core.networks.serve(link if way_out else replace(link, gateway=""))
        way_out = way_out and not link.gateway


def link_log(core: Core, instance: Instance) -> None:
    """Let the monitor's `log` be the instance's own, which outlives the place."""
    log_file = core.directory(instance.id) / "log"
    log_file.touch(mode=0o600)
    os.link(log_file, core.config.root / "places" / instance.record.place / "log")


def _start_failed(core: Core, instance: Instance, before: str, error: ProaError) -> None:
    record = instance.record
    record.state = before if before == states.EXITED else states.CREATED
    record.error = error.message
    record.exit_code = error.exit_code if isinstance(error, LaunchError) else 128
    record.place, record.saved = "", {}
    instance.running = None
    _drop_waiting(instance)
    try:
        core.save(instance)
    except ProaError as second:
        log.error("%s", second)
    if instance.spec.remove:
        remove(core, instance, volumes=True)
    instance.notify()


def _drop_waiting(instance: Instance) -> None:
    """Let go of clients that attached for a start that will not come."""
    waiting, instance.waiting = instance.waiting, []
    for attachment in waiting:
        os.close(attachment.descriptor)


def shares(core: Core, instance: Instance) -> tuple[Share, ...]:
    """Host paths of bind mounts and volumes, in the order of the spec's mounts."""
    found: list[Share] = []
    anonymous = iter(instance.record.volumes)
    for mount in instance.spec.mounts:
        if mount.kind == "bind":
            source = Path(mount.source)
            if mount.make:
                _make_source(source)
            elif not source.exists():
                raise Invalid(f"bind source path does not exist: {mount.source}")
            found.append(Share(source, mount.target, mount.readonly))
        elif mount.kind == "volume":
            name = mount.source or next(anonymous)
            found.append(Share(core.volumes.path(name), mount.target, mount.readonly))
    return tuple(found)


def _make_source(source: Path) -> None:
    try:
        if not source.exists():
            source.mkdir(mode=0o755, parents=True)
    except OSError as error:
        raise Invalid(f"cannot make bind source '{source}': {error.strerror}") from error


def core_files(core: Core, spec: Spec, linked: tuple[Link, ...]) -> compile.Files:
    """The contents of /etc/hosts, /etc/hostname and /etc/resolv.conf."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines += [f"{address}\t{name}" for name, address in spec.extra_hosts]
    lines += [f"{link.address.partition('/')[0]}\t{spec.hostname}" for link in linked]
    servers = spec.nameservers or (core.networks.nameservers() if linked else ())
    resolv = "".join(f"nameserver {server}\n" for server in servers)
    return compile.Files(
        "\n".join(lines) + "\n", spec.hostname + "\n", resolv or "# no name servers\n"
    )


# -- the end ----------------------------------------------------------------------------------


def _on_exit(core: Core, instance: Instance, running: Running, exit: Exit) -> None:
    """In the dispatcher's thread: pass on, never wait."""
    if exit.id == MAIN:
        core.later(lambda: ended(core, instance, running, exit))
    else:
        core.exec_ended(instance.id, exit)


def ended(core: Core, instance: Instance, running: Running, exit: Exit | None) -> None:
    """The main process is over, or the monitor is gone (then its record, if any, tells)."""
    with instance.lock:
        if instance.held is not running or not instance.live:
            return
        record = instance.record
        if exit is None:
            exit, record.error = read_exit(core.config.root / "places" / record.place)
        record.exit_code, record.finished_ns = exit.code, exit.finished_ns
        record.oom_killed = exit.oom or running.usage().oom_kills > 0
        running.kill()
        instance.running = None
        settle(core, instance)


def settle(core: Core, instance: Instance) -> None:
    """Release what a run held and write the new state; the caller holds the lock."""
    record = instance.record
    links.rest(core, instance)
    links.leave_home(core, record)
    left, record.interfaces = tuple(record.interfaces), {}
    links.changed(core, left)
    record.state, record.place, record.saved = states.EXITED, "", {}
    instance.runs += 1
    core.save(instance)
    _wake_log_readers(core, instance)
    core.emit(instance, "die", exitCode=str(record.exit_code))
    if instance.spec.remove:
        remove(core, instance, volumes=True)
    instance.notify()


def _wake_log_readers(core: Core, instance: Instance) -> None:
    with suppress(FileNotFoundError):
        os.utime(core.directory(instance.id) / "log")


def read_exit(place: Path) -> tuple[Exit, str]:
    """A monitor's exit record, or what to say when it left none."""
    try:
        pairs = (line.partition("=") for line in (place / "exit").read_text().splitlines())
        found = {key: value for key, _, value in pairs}
        code, number = int(found["code"]), int(found["signal"])
        finished = int(found["finished_ns"])
    except (OSError, KeyError, ValueError):
        return Exit(MAIN, 137, 9, time.time_ns(), False), "the instance's monitor was killed"
    return Exit(MAIN, code, number, finished, found.get("oom") == "1"), found.get("error", "")


# -- stop, kill, pause --------------------------------------------------------------------------


def stop(
    core: Core, instance: Instance, timeout_seconds: float | None, signal_name: str = ""
) -> None:
    """Ask to end, wait the grace period, then kill.  A negative time-out waits for ever."""
    if not instance.live:
        raise NotModified(f"instance '{instance.name}' is not running")
    spec = instance.spec
    grace = spec.stop_timeout_seconds if timeout_seconds is None else timeout_seconds
    _signal(instance, signal_number(signal_name or spec.stop_signal))
    if instance.state == states.PAUSED:
        resume(core, instance)
    if not _wait_ended(instance, None if grace < 0 else grace):
        _signal(instance, signal.SIGKILL)
        if not _wait_ended(instance, KILL_PATIENCE_SECONDS):
            _force(instance)
    core.emit(instance, "stop")


def kill(core: Core, instance: Instance, signal_name: str) -> None:
    """Send a signal to the main process; SIGKILL also ends one that cannot hear any more."""
    number = signal_number(signal_name or "KILL")
    if not instance.live:
        raise Conflict(f"Container {instance.name} is not running")
    _signal(instance, number)
    core.emit(instance, "kill", signal=str(number))
    if number != signal.SIGKILL:
        return
    if instance.state == states.PAUSED:
        with suppress(IsolationError, Conflict):  # a machine that was stopped ends all the same
            resume(core, instance)
    if not _wait_ended(instance, KILL_PATIENCE_SECONDS):
        _force(instance)


def _signal(instance: Instance, number: int) -> None:
    running = instance.running
    if running is None:
        return
    with suppress(IsolationError):  # it ended meanwhile; the record will say so
        running.signal(number)


def _force(instance: Instance) -> None:
    running = instance.running
    if running is not None:
        with suppress(IsolationError):
            running.agent().kill()
        _wait_ended(instance, KILL_PATIENCE_SECONDS)


def _wait_ended(instance: Instance, timeout_seconds: float | None) -> bool:
    with instance.changed:
        return instance.changed.wait_for(lambda: not instance.live, timeout_seconds)


def signal_number(name: str) -> int:
    """A signal by name, with or without SIG, or number.  Raises Invalid."""
    text = name.upper()
    if text.isascii() and text.isdigit() and 0 < int(text) < 65:
        return int(text)
    full = text if text.startswith("SIG") else f"SIG{text}"
    found = getattr(signal, full, None)
    if not isinstance(found, signal.Signals):
        raise Invalid(f"Invalid signal: {name}")
    return int(found)


def pause(core: Core, instance: Instance) -> None:
    """Freeze.  Raises Conflict unless running."""
    with instance.lock:
        if instance.state == states.PAUSED:
            raise Conflict(f"Container {instance.id} is already paused")
        if instance.state != states.RUNNING or instance.running is None:
            raise Conflict(f"Container {instance.id} is not running")
        instance.running.pause()
        instance.record.state = states.PAUSED
        core.save(instance)
    core.emit(instance, "pause")


def resume(core: Core, instance: Instance) -> None:
    """Thaw.  Raises Conflict unless paused, by somebody or by a full disk of the host."""
    with instance.lock:
        if instance.running is None or not (
            instance.state == states.PAUSED or machines.disk_full(instance)
        ):
            raise Conflict(f"Container {instance.id} is not paused")
        instance.running.resume()
        instance.record.state = states.RUNNING
        core.save(instance)
    core.emit(instance, "unpause")


# -- remove -----------------------------------------------------------------------------------


def remove(core: Core, instance: Instance, *, force: bool = False, volumes: bool = False) -> None:
    """Delete an instance and all it holds.  Raises Conflict when it runs, unless forced."""
    if instance.live:
        if not force:
            raise Conflict(
                f"cannot remove container '/{instance.name}': container is {instance.state}: "
                "stop the container before removing or force remove"
            )
        kill(core, instance, "KILL")
    with instance.lock:
        if instance.removed:
            return
        instance.record.removing = True
        with suppress(NoSpace):  # removing is what makes room
            core.save(instance)
        files.remove_tree(core.directory(instance.id))
        links.release(core, instance.id)
        if volumes:
            for name in instance.record.volumes:
                core.volumes.remove(name, force=True)
        core.forget(instance)
        _drop_waiting(instance)
        instance.removed = True
    core.emit(instance, "destroy")
    instance.notify()
