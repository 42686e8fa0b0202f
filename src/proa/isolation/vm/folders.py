"""Shared folders by virtiofs: a file server for one machine, in a place of its own.

The server reads and writes the guest's memory (vhost-user), so RAM must be a file both map, shared:
never a template's private mapping, of which the server would see the template's own pages.  It runs
as root of its place, over mounts whose ids its user namespace maps, and knows nothing but them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import socket
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from proa import capabilities, plan
from proa.agent import MAIN, Exit, Kind
from proa.errors import HostError, IsolationError, Unsupported
from proa.isolation.places import Place, Places
from proa.isolation.vm import confinement, hull, qemu
from proa.isolation.vm.settings import host_limits
from proa.plan import encode
from proa.resources import Launch

NINEP, VIRTIOFS = "9p", qemu.VIRTIOFS
PROGRAMS = (
    "/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd",
    "/usr/libexec/qemu-kvm/virtiofsd",
)  # fmt: skip
KEPT = (
    "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "SETGID", "SETUID",
    "SYS_CHROOT", "SETPCAP",  # until it has confined itself
)  # fmt: skip
WITHOUT = "-mknod:-setfcap"  # of what it wants by itself
FILES_MAXIMUM = 1 << 20  # it keeps one open for every file the guest remembers
OPEN_FILES = "/proc/sys/fs"  # each reads a limit there, and ends when it cannot
ASK_SECONDS = 10.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """An installed virtiofsd: QEMU's own of old, or the later one written in Rust.

    Of the latter a guest sees what the host changes after up to a second: without its cache there
    are no shared mappings in guests before Linux 6.6.
    """

    program: str
    rust: bool

    def arguments(self, listener: int) -> tuple[str, ...]:
        """Serve all shares on a listening socket."""
        if self.rust:
            return (
                self.program, f"--fd={listener}", f"--shared-dir={qemu.SHARES_PATH}",
                "--sandbox=chroot", "--cache=auto", "--xattr", "--announce-submounts",
                "--inode-file-handles=never", f"--modcaps={WITHOUT}", "--rlimit-nofile=0",
            )  # fmt: skip
        options = (
            "sandbox=chroot", "cache=auto", "timeout=0", "xattr", "announce_submounts",
            "log_level=warn",
        )  # fmt: skip
        return (
            self.program, "-f", f"--fd={listener}", "-o", f"source={qemu.SHARES_PATH}",
            "-o", ",".join(options), "-o", f"modcaps={WITHOUT}", "--rlimit-nofile=0",
        )  # fmt: skip


@dataclass
class Folders:
    """A server at work; `connection` is QEMU's end."""

    place: Place
    connection: socket.socket

    def descriptor(self) -> int:
        """QEMU's end of the connection, given away."""
        return self.connection.detach()

    def watch(self, instance: str, machine: Place) -> None:
        """Say so in the log when it ends before its machine."""
        self.place.agent.on_exit = lambda exit: _ended(instance, machine, exit)

    def end(self, places: Places) -> None:
        """Give up."""
        self.connection.close()
        places.end(self.place)


def find() -> Server:
    """The host's virtiofsd.  Raises Unsupported."""
    for program in PROGRAMS:
        with contextlib.suppress(OSError):
            return _ask(program, Path(program).stat().st_mtime_ns)
    raise Unsupported("this host has no virtiofsd", hint="install 'virtiofsd', or ask for 9p")


@cache
def _ask(program: str, changed_ns: int) -> Server:
    """Which one it is, by its own word."""
    del changed_ns
    asked = subprocess.run(
        (program, "--help"), capture_output=True, text=True, timeout=ASK_SECONDS, check=False
    )
    said = asked.stdout + asked.stderr
    if "--shared-dir" not in said and "source=PATH" not in said:
        raise HostError(f"'{program} --help' failed with {asked.returncode}: {said[:200]!r}")
    return Server(program, rust="--shared-dir" in said)


def kind(launch: Launch, guest_modules: tuple[str, ...]) -> str:
    """How a machine whose RAM is its own gets its shares.  Raises Unsupported when what was asked
    for is not there."""
    wanted = launch.hardware.shares if launch.shares else NINEP
    if wanted == VIRTIOFS:
        find()
        return VIRTIOFS
    if wanted == NINEP or VIRTIOFS not in guest_modules:
        return NINEP
    try:
        find()
    except (Unsupported, HostError):
        return NINEP
    return VIRTIOFS


def serve(places: Places, skeleton: Path, launch: Launch) -> Folders:
    """Start a server of the launch's shares.  Raises IsolationError or HostError."""
    server, place = find(), places.take()
    with ExitStack() as undo, ExitStack() as opened:
        undo.callback(places.end, place)
        place.cgroup.apply(host_limits(launch.limits))
        listener, connection = _connected(place.directory)
        undo.callback(connection.close)
        with listener:
            berth = hull.Site(place, skeleton)
            steps, trees = hull.root_steps(berth, launch.shares, False, 1, opened)
            files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], FILES_MAXIMUM)
            mask = capabilities.mask(add=KEPT, drop=("ALL",))
            steps += (
                plan.Rlimit("nofile", files, files), plan.Capabilities(f"{mask:x}"),
                plan.NoNewPrivileges(), *_restricted(server.program),
                plan.Exec(server.arguments(plan.INHERIT_FIRST)),
            )  # fmt: skip
            sent = (listener.fileno(), *trees)
            place.agent.finish(place.agent.begin(Kind.LAUNCH, MAIN, encode(steps), 0, sent))
        undo.pop_all()
    return Folders(place, connection)


def _ended(instance: str, machine: Place, exit: Exit) -> None:
    """It ends when QEMU does, or is ended after it; before that, the shares hang for good."""
    if exit.id != MAIN:
        return
    with contextlib.suppress(OSError, IndexError):
        state = Path(f"/proc/{machine.pid}/stat").read_text().rpartition(") ")[2][0]
        if state not in "ZX":
            log.warning(
                "the file server of instance '%s' ended: its shares are dead until it is "
                "started again", instance[:12],
            )  # fmt: skip


def _restricted(program: str) -> tuple[plan.Step, ...]:
    """Landlock, where the kernel has it.  System calls are the program's own affair: its filter is
    narrower than ours, and it needs `unshare` for each of its threads."""
    if not confinement.landlock_abi():
        return ()
    return (plan.Landlock((*confinement.rules(program), f"read:{OPEN_FILES}")),)


def _connected(directory: Path) -> tuple[socket.socket, socket.socket]:
    """A listening socket nobody else can reach, and the one connection to it."""
    with ExitStack() as undo:
        listener, connection = (
            undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) for _ in "12"
        )
        held = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        undo.callback(os.close, held)
        path = f"/proc/self/fd/{held}/folders"
        try:
            listener.bind(path)
            listener.listen(1)
            connection.connect(path)
            os.unlink(path)
        except OSError as error:
            raise IsolationError(f"cannot make a socket in '{directory}': {error}") from error
        result = listener.dup(), connection.dup()
    return result
