"""The place QEMU runs in: an ordinary place of the host, with QEMU's two connections laid.

One socket pair carries QMP (the engine's end is also kept by the monitor, for engines to come), the
other the guest's channel, whose near end is the monitor's.  The root of the place is a read-only
skeleton with the host's programs in it, nothing else of the host's.
"""

from __future__ import annotations

import contextlib
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proa import capabilities, plan
from proa.agent import HULL, Exit, Kind, Waiter
from proa.agent import Launch as Flag
from proa.errors import ProaError
from proa.host import mounts
from proa.isolation.container.isolation import share_mount
from proa.isolation.places import Place, Places
from proa.isolation.vm import qemu, qmp
from proa.plan import Step, encode
from proa.resources import Share

SYSTEM_DIRECTORIES = ("usr", "lib", "lib64", "bin")
LOADER_CACHE = "etc/ld.so.cache"
KVM = "/dev/kvm"
QEMU_LOG = "qemu.log"  # written by the monitor
WORDS_MAXIMUM = 400
SHARE_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID")


@dataclass
class Hull:
    """A place ready for QEMU, whose ends of the two connections wait here until it is launched."""

    place: Place
    qmp: qmp.Qmp
    control_end: socket.socket
    channel_end: socket.socket

    def last_words(self) -> str:
        """What QEMU wrote before it ended, on one line."""
        try:
            text = (self.place.directory / QEMU_LOG).read_text(errors="replace")
        except OSError:
            return ""
        return text.strip().replace("\n", "; ")[-WORDS_MAXIMUM:]

    def close_ends(self) -> None:
        """QEMU has its copies."""
        self.control_end.close()
        self.channel_end.close()


def make(places: Places) -> Hull:
    """A new place whose monitor holds the guest's channel and keeps QMP."""
    with ExitStack() as undo:
        control, control_end = socket.socketpair()
        channel, channel_end = socket.socketpair()
        for end in (control, control_end, channel_end):
            undo.callback(end.close)
        with channel:
            wires = (("--channel", channel.fileno()), ("--keep", control.fileno()))
            place = places.make(wires=wires)
        place.agent.on_exit = lambda exit: _hull_exited(place, exit)
        undo.pop_all()
        return Hull(place, qmp.Qmp(control), control_end, channel_end)


def _hull_exited(place: Place, exit: Exit) -> None:
    """QEMU ended before there was an instance: end the place, so that nobody waits for init."""
    if exit.id == HULL:
        with contextlib.suppress(ProaError):
            place.agent.kill()


@dataclass(frozen=True)
class Cargo:
    """What a launch sends along: descriptors of the caller's, numbered as QEMU will see them."""

    image: int
    disk: int
    tap: int = -1
    memory: int = -1
    state: int = -1
    kernel: int = -1
    initramfs: int = -1


def begin(
    hull: Hull, machine: qemu.Machine, cargo: Cargo, shares: tuple[Share, ...], skeleton: Path
) -> Waiter:
    """Ask the place to become QEMU; `finish` of its agent waits until it has started."""
    wanted = (
        hull.control_end.fileno(),
        hull.channel_end.fileno(),
        cargo.image,
        cargo.disk,
        cargo.tap,
        cargo.memory,
        cargo.state,
        cargo.kernel,
        cargo.initramfs,
    )
    sent = [number for number in wanted if number >= 0]
    numbers = iter(range(plan.INHERIT_FIRST, plan.INHERIT_FIRST + len(sent)))
    named = [next(numbers) if number >= 0 else -1 for number in wanted]
    control, channel, image, disk, tap, memory = named[:6]
    files = qemu.Files(control, channel, image, disk, tap, memory)
    start: qemu.Start = qemu.Clone()
    if cargo.kernel >= 0:
        start = qemu.Boot(f"/proc/self/fd/{named[7]}", f"/proc/self/fd/{named[8]}")
    with ExitStack() as opened:
        steps, trees = _steps(hull.place, machine, shares, skeleton, len(sent), opened)
        argv = qemu.arguments(machine, files, start)
        steps += (*_confinement(bool(shares)), plan.Exec(argv))
        return hull.place.agent.begin(Kind.LAUNCH, HULL, encode(steps), Flag.LOCAL, (*sent, *trees))


def state_number(cargo: Cargo) -> int:
    """The number QEMU knows the device state's descriptor by."""
    before = (0, 0, cargo.image, cargo.disk, cargo.tap, cargo.memory)
    return plan.INHERIT_FIRST + sum(number >= 0 for number in before)


def _steps(
    place: Place,
    machine: qemu.Machine,
    shares: tuple[Share, ...],
    skeleton: Path,
    sent: int,
    opened: ExitStack,
) -> tuple[tuple[Step, ...], list[int]]:
    """The root of the place, and the descriptors its `fd:N` name, which follow the `sent` ones."""
    trees: list[int] = []

    def add(descriptor: int) -> str:
        opened.callback(os.close, descriptor)
        trees.append(descriptor)
        return f"fd:{sent + len(trees) - 1}"

    steps: list[Step] = [plan.Root(add(_readonly(skeleton)))]
    steps += [
        plan.Attach(add(_readonly(Path("/", name))), f"/{name}") for name in _system(skeleton)
    ]
    if machine.accelerator == "kvm":
        idmap = place.user_namespace()
        opened.callback(os.close, idmap)
        tree = mounts.open_tree(KVM)
        mounts.set_attributes(tree, idmap_fd=idmap)
        steps.append(plan.Attach(add(tree), KVM))
    if shares:
        idmap = place.user_namespace()
        opened.callback(os.close, idmap)
        steps.append(plan.MountFs("tmpfs", "shares", qemu.SHARES_PATH, "nosuid,nodev"))
        steps += [
            plan.Attach(add(share_mount(share, idmap)), f"{qemu.SHARES_PATH}/{number}")
            for number, share in enumerate(shares)
        ]
    steps.append(plan.Inherit(tuple(f"fd:{number}" for number in range(sent))))
    return tuple(steps), trees


def _confinement(shares: bool) -> tuple[Step, ...]:
    """No capability but what serving files of several owners takes; the default system calls."""
    kept = SHARE_CAPABILITIES if shares else ()
    mask = capabilities.mask(add=kept, drop=("ALL",))
    return (plan.Capabilities(f"{mask:x}"), plan.NoNewPrivileges(), plan.Seccomp("default"))


def _readonly(path: Path) -> int:
    tree = mounts.open_tree(path)
    try:
        mounts.set_attributes(tree, readonly=True, nodev=True)
    except BaseException:
        os.close(tree)
        raise
    return tree


def _system(skeleton: Path) -> list[str]:
    """What of the host is attached: the parts of the skeleton that are not links."""
    names = [
        name
        for name in SYSTEM_DIRECTORIES
        if (skeleton / name).is_dir() and not (skeleton / name).is_symlink()
    ]
    return [*names, LOADER_CACHE] if (skeleton / LOADER_CACHE).is_file() else names


def make_skeleton(path: Path) -> Path:
    """The empty root of QEMU's places: directories to attach to, links as the host has them."""
    for name in ("proc", "sys", "dev", "etc", "tmp", "run", qemu.SHARES_PATH.lstrip("/")):
        (path / name).mkdir(parents=True, exist_ok=True)
    for name in SYSTEM_DIRECTORIES:
        _mirror(Path("/", name), path / name)
    if Path("/", LOADER_CACHE).is_file():
        (path / LOADER_CACHE).touch()
    return path


def _mirror(original: Path, copy: Path) -> None:
    if copy.is_symlink() or copy.exists():
        return
    if original.is_symlink():
        copy.symlink_to(original.readlink())
    elif original.is_dir():
        copy.mkdir()
