"""The place QEMU runs in: an ordinary place of the host, with QEMU's two connections laid.

One socket pair carries QMP (the engine's end is also kept by the monitor, for engines to come), the
other the guest's channel, whose near end is the monitor's.  The root of the place is a read-only
skeleton with the host's programs in it, nothing else of the host's.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

from proa import plan
from proa.agent import HULL, Exit, Kind, Waiter
from proa.agent import Launch as Flag
from proa.errors import IsolationError, ProaError, Timeout
from proa.host import mounts
from proa.isolation.container.isolation import share_mount
from proa.isolation.places import Place, Places
from proa.isolation.vm import confinement, qemu, qmp
from proa.isolation.vm.layers import Opened
from proa.plan import Step, encode
from proa.resources import Share

SYSTEM_DIRECTORIES = ("usr", "lib", "lib64", "bin")
LOADER_CACHE = "etc/ld.so.cache"
ROOTS = "mode=0755,size=64k,nr_inodes=1k"  # room for the directories shares are attached to
KVM = "/dev/kvm"
QEMU_LOG = "qemu.log"  # written by the monitor
WORDS_MAXIMUM = 400


@dataclass(frozen=True)
class Cargo:
    """Descriptors QEMU is born with, -1 for none: ours, or (`numbered`) as QEMU knows them."""

    control: int
    channel: int
    image: int
    disk: Opened
    tap: int = -1
    memory: int = -1
    state: int = -1
    kernel: int = -1
    initramfs: int = -1
    folders: int = -1
    below: Opened = field(default_factory=Opened.none)

    def sent(self) -> tuple[int, ...]:
        """Those that are there."""
        return tuple(number for number in self._numbers() if number >= 0)

    def _numbers(self) -> Iterator[int]:
        for item in fields(self):
            value = getattr(self, item.name)
            yield from value.descriptors if isinstance(value, Opened) else (value,)

    def numbered(self) -> Cargo:
        """The same with the numbers the `inherit` verb gives them."""
        numbers = itertools.count(plan.INHERIT_FIRST)
        found: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, Opened):
                chain = tuple(next(numbers) for _ in value.descriptors)
                found[item.name] = replace(value, descriptors=chain)
            else:
                found[item.name] = next(numbers) if value >= 0 else -1
        return Cargo(**found)

    def files(self) -> qemu.Files:
        """What of it is in QEMU's arguments."""
        return qemu.Files(
            self.control, self.channel, self.image, self.disk, self.tap, self.memory,
            folders=self.folders, below=self.below,
        )  # fmt: skip


class Dock(Protocol):
    """A place, and the empty root it shall have."""

    place: Place
    skeleton: Path


@dataclass
class Site:
    """A dock without wires."""

    place: Place
    skeleton: Path


@dataclass
class Hull:
    """A place ready for QEMU, whose ends of the two connections wait here until it is launched."""

    place: Place
    qmp: qmp.Qmp
    control_end: socket.socket
    channel_end: socket.socket
    skeleton: Path
    placed_ns: int = 0  # when it became an instance's

    def cargo(self, image: int, disk: Opened, tap: int = -1) -> Cargo:
        """QEMU's ends of the connections, with a machine's disks and tap."""
        return Cargo(self.control_end.fileno(), self.channel_end.fileno(), image, disk, tap)

    def last_words(self) -> str:
        """What QEMU wrote before it ended, on one line."""
        return last_words(self.place)

    def close_ends(self) -> None:
        """QEMU has its copies."""
        self.control_end.close()
        self.channel_end.close()

    def end(self, places: Places) -> None:
        """Give up: end QEMU and remove the place."""
        self.close_ends()
        places.release(self.place.name)
        self.qmp.close()


def make(places: Places, skeleton: Path, process: int = HULL) -> Hull:
    """A new place whose monitor holds the guest's channel and keeps QMP.

    QEMU is the hull of what runs in its guest, or, of a whole machine, the main process itself.
    """
    with ExitStack() as undo:
        control, control_end = socket.socketpair()
        channel, channel_end = socket.socketpair()
        for end in (control, control_end, channel_end):
            undo.callback(end.close)
        with channel:
            wires = (("--channel", channel.fileno()), ("--keep", control.fileno()))
            place = places.make(wires=wires, process=process)
        place.agent.on_exit = lambda exit: hull_exited(place, exit)
        undo.pop_all()
        return Hull(place, qmp.Qmp(control), control_end, channel_end, skeleton)


def last_words(place: Place) -> str:
    """What the QEMU of a place wrote before it ended, on one line."""
    try:
        text = (place.directory / QEMU_LOG).read_text(errors="replace")
    except OSError:
        return ""
    return text.strip().replace("\n", "; ")[-WORDS_MAXIMUM:]


@contextlib.contextmanager
def watched(hull: Hull, places: Places) -> Iterator[None]:
    """Ends a hull whose start fails inside, and says what QEMU said."""
    try:
        yield
    except BaseException as error:
        said = hull.last_words()
        hull.end(places)
        if said and isinstance(error, IsolationError | Timeout):
            raise IsolationError(f"qemu ended: {said}") from error
        raise


def hull_exited(place: Place, exit: Exit) -> None:
    """QEMU ended before there was an instance: end the place, so that nobody waits for init."""
    if exit.id == HULL:
        with contextlib.suppress(ProaError):
            place.agent.kill()


def begin(
    hull: Hull, argv: tuple[str, ...], cargo: Cargo, shares: tuple[Share, ...], kvm: bool
) -> Waiter:
    """Ask the place to become QEMU; `finish` of its agent waits until it has started."""
    sent = cargo.sent()
    with ExitStack() as opened:
        steps, trees = root_steps(hull, shares, kvm, len(sent), opened)
        steps += (*confinement.steps(argv[0], shares=True), plan.Exec(argv))  # some may come later
        return hull.place.agent.begin(Kind.LAUNCH, HULL, encode(steps), Flag.LOCAL, (*sent, *trees))


def root_steps(
    hull: Dock, shares: tuple[Share, ...], kvm: bool, sent: int, opened: ExitStack
) -> tuple[tuple[Step, ...], list[int]]:
    """The root of the place, and the descriptors its `fd:N` name, which follow the `sent` ones."""
    trees: list[int] = []

    def add(descriptor: int) -> str:
        opened.callback(os.close, descriptor)
        trees.append(descriptor)
        return f"fd:{sent + len(trees) - 1}"

    steps: list[Step] = [plan.Root(add(_readonly(hull.skeleton)))]
    for name in _system(hull.skeleton):
        steps.append(plan.Attach(add(_readonly(Path("/", name))), f"/{name}"))
    if kvm or shares:
        idmap = hull.place.user_namespace()
        opened.callback(os.close, idmap)
    if kvm:
        device = mounts.open_tree(KVM)
        steps.append(plan.Attach(add(device), KVM))
        mounts.set_attributes(device, idmap_fd=idmap)
    steps.append(plan.MountFs("tmpfs", "shares", qemu.SHARES_PATH, "nosuid,nodev", ROOTS))
    for number, share in enumerate(shares):
        path = f"{qemu.SHARES_PATH}/{number}"
        steps.append(plan.Attach(add(share_mount(share, idmap)), path))
    steps.append(plan.ReadOnly(qemu.SHARES_PATH))
    steps.append(plan.Inherit(tuple(f"fd:{number}" for number in range(sent))))
    return tuple(steps), trees


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
