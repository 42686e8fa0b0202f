"""Starting whole machines: everything is made ready, and QEMU is the launch itself.

So QEMU is the instance's main process: its standard streams are the guest's first serial port, and
the end of the one is the end of the other.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proa import plan
from proa.agent import MAIN
from proa.agent import Launch as Flag
from proa.errors import HostError, Unsupported
from proa.host import netlink
from proa.isolation.places import Places
from proa.isolation.vm import architectures, blocks, confinement, folders, hull, layers, qemu, qmp
from proa.isolation.vm.prepared import Ground
from proa.isolation.vm.settings import MIB, Settings, host_limits
from proa.isolation.vm.whole import disks, firmware, seed, tpm
from proa.isolation.vm.whole.arguments import Wires, arguments
from proa.isolation.vm.whole.board import BIOS, Board, architecture, decide
from proa.isolation.vm.whole.running import WholeMachine
from proa.resources import Launch, Sources
from proa.spec import EMPTY

GUEST_MODULES = (folders.VIRTIOFS,)  # nobody knows: what any system of the last years has


class Wholes:
    """Makes whole machines, and takes over those of an engine now gone."""

    def __init__(self, places: Places, settings: Settings, ground: Callable[[str], Ground]) -> None:
        self._places, self._settings, self._ground = places, settings, ground

    def start(self, launch: Launch) -> WholeMachine:
        """Make everything but QEMU itself, which the launch plan of `sources` becomes."""
        if launch.idle:
            raise Unsupported(
                "the files of a stopped machine are its own system's", hint="start it first"
            )
        hardware = launch.hardware
        host = self._ground(architecture(hardware))
        base = None if hardware.disk == EMPTY else launch.rootfs.disk()
        disk = disks.prepare(launch.directory, base, hardware.format, hardware.disk_bytes)
        board = _board(launch, host, self._settings, disks.boots_by(disk))
        with ExitStack() as undo:
            beside: list[str] = []
            server, security = None, None
            if launch.shares and folders.kind(launch, GUEST_MODULES) == folders.VIRTIOFS:
                server = folders.serve(self._places, host.skeleton, launch)
                undo.callback(server.end, self._places)
                beside.append(server.place.name)
            if board.tpm:
                security = tpm.serve(self._places, host.skeleton, launch.directory)
                undo.callback(security.end, self._places)
                beside.append(security.place.name)
            berth = hull.make(self._places, host.skeleton, MAIN)
            undo.callback(berth.end, self._places)
            berth.place.cgroup.apply(host_limits(launch.limits, board.ram_bytes))
            berth.place.agent.hold(launch.hold)
            berth.qmp.pipeline(("qmp_capabilities", {}))
            ours = host.architecture.ours(self._places.native)
            parts = Parts(berth, launch, board, disk, server, security, ours)
            undo.pop_all()
        if server:
            server.watch(launch.id, berth.place)
        shape = qemu.Machine(
            board.ram_bytes, board.vcpus, bool(launch.links), board.accelerator,
            architecture=board.architecture,
            ram_maximum=board.ram_maximum, vcpus_maximum=board.vcpus_maximum,
        )  # fmt: skip
        return WholeMachine(
            berth.place, self._places, berth.qmp, shape, _facts(parts, host),
            lambda: _sources(parts), tuple(beside),
        )  # fmt: skip

    def adopt(self, saved: dict[str, Any]) -> WholeMachine:
        """Connect to the monitor of a machine, and take over its QMP."""
        place = self._places.adopt(saved)
        control = socket.socket(fileno=place.agent.get_descriptor())
        shape = qemu.Machine(
            int(saved["ram_bytes"]), int(saved["vcpus"]), bool(saved["network"]),
            architecture=str(saved.get("architecture", architectures.HOST)),
            ram_maximum=int(saved.get("ram_maximum", 0)),
            vcpus_maximum=int(saved.get("vcpus_maximum", 0)),
        )  # fmt: skip
        found = WholeMachine(place, self._places, qmp.Qmp(control), shape, dict(saved["facts"]))
        found.places_beside = tuple(saved["places"])
        return found


@dataclass(frozen=True)
class Parts:
    """What QEMU is launched with."""

    berth: hull.Hull
    launch: Launch
    board: Board
    disk: layers.Chain
    folders: folders.Folders | None
    tpm: tpm.Tpm | None
    ours: Path  # our program, for the system inside; there may be none


def _board(launch: Launch, host: Ground, settings: Settings, boots_by: str) -> Board:
    hardware = launch.hardware
    board = decide(hardware, launch.limits, settings, boots_by)
    return replace(
        board,
        accelerator=host.accelerate(hardware.accelerator).name,
        macs=tuple(link.mac for link in launch.links),
        uuid=f"{launch.id[:8]}-{launch.id[8:12]}-{launch.id[12:16]}-{launch.id[16:20]}-"
        f"{launch.id[20:32]}",
    )


def _facts(parts: Parts, host: Ground) -> dict[str, str]:
    board, hardware = parts.board, parts.launch.hardware
    facts = {
        "platform": f"linux/{board.architecture}", "qemu": host.abilities.version,
        "accelerator": board.accelerator, "started_by": "its own system",
        "machine": board.machine, "firmware": board.firmware,
        "disk": hardware.disk, "disk_format": parts.disk.layers[-1].format,
        "disk_bus": board.disk_bus, "nic": board.nic, "display": board.display,
        "tpm": "2.0" if board.tpm else "none", "cache": hardware.cache,
        "ram_mib": str(board.ram_bytes // MIB), "vcpus": str(board.vcpus),
        "landlock": confinement.fact(),
    }  # fmt: skip
    facts["cloud_init"] = "seed" if seed.wanted(hardware) else "none"
    if hardware.cdroms:
        facts["cdroms"] = " ".join(hardware.cdroms)
    if reason := host.accelerate(hardware.accelerator).reason:
        facts["accelerator_reason"] = reason
    if not host.architecture.native:
        facts["emulated_by"] = str(host.architecture.program)
    if parts.launch.shares:
        facts["shares"] = folders.VIRTIOFS if parts.folders else folders.NINEP
    return facts


class _Cargo:
    """Descriptors on their way to QEMU: ours until it is launched, then closed."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def add(self, descriptor: int) -> int:
        """Take a descriptor; its number as QEMU will know it."""
        self.sent.append(descriptor)
        return plan.INHERIT_FIRST + len(self.sent) - 1


def _sources(parts: Parts) -> Sources:
    """The launch: the plan that becomes QEMU, and all it is born with."""
    berth, launch = parts.berth, parts.launch
    cargo = _Cargo()
    try:
        wires = _wires(parts, cargo)
        argv = arguments(parts.board, wires, blocks.cache(launch.hardware.cache))
        kvm = parts.board.accelerator == "kvm"
        local = () if parts.folders else launch.shares
        with ExitStack() as opened:
            steps, trees = hull.root_steps(berth, local, kvm, len(cargo.sent), opened)
            cargo.sent += [os.dup(tree) for tree in trees]
        if launch.terminal:
            steps += (plan.Terminal(),)
        steps += (*confinement.steps(argv[0], shares=bool(local)), plan.Exec(argv))
    except BaseException:
        for descriptor in cargo.sent:
            os.close(descriptor)
        raise
    flags = Flag.LOCAL | Flag.STDIN
    return Sources(root="", descriptors=tuple(cargo.sent), plan=steps, flags=int(flags))


def _wires(parts: Parts, cargo: _Cargo) -> Wires:
    berth, launch, board = parts.berth, parts.launch, parts.board
    control = cargo.add(berth.control_end.detach())
    channel = cargo.add(berth.channel_end.detach())
    opened = layers.open_all(parts.disk)
    disk = replace(opened, descriptors=tuple(cargo.add(item) for item in opened.descriptors))
    cdroms = tuple(cargo.add(_open_cdrom(path)) for path in launch.hardware.cdroms)
    wires = Wires(control, channel, disk, cdroms, shares=bool(launch.shares))
    wires = replace(wires, guest_agent=cargo.add(_keep_guest_agent(berth)))
    if seed.wanted(launch.hardware):
        ours = parts.ours.read_bytes() if parts.ours.exists() else b""
        content = seed.build(seed.of(launch, ours))
        wires = replace(wires, seed=cargo.add(_in_memory(content)))
    for link in launch.links:
        tap = netlink.tap_open(link.host_name, link.bridge)
        wires = replace(wires, taps=(*wires.taps, cargo.add(tap)))
        berth.place.agent.keep(tap)
    if board.firmware != BIOS:
        found = firmware.find(board.firmware, board.architecture)
        nvram = cargo.add(firmware.nvram(launch.directory, found))
        wires = replace(wires, nvram=nvram, code=found.code)
    if parts.tpm:
        wires = replace(wires, tpm=cargo.add(parts.tpm.connection.detach()))
    if parts.folders:
        wires = replace(wires, folders=cargo.add(parts.folders.descriptor()))
    return wires


def _keep_guest_agent(berth: hull.Hull) -> int:
    """A port for the guest agent: QEMU's end; the monitor keeps ours for this engine and others."""
    ours, theirs = socket.socketpair()
    with ours:
        berth.place.agent.keep(ours.fileno())
    return theirs.detach()


def _in_memory(content: bytes) -> int:
    """A file that nobody can write to."""
    descriptor = os.memfd_create("seed", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        return os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)


def _open_cdrom(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot open the CD '{path}': {error.strerror}") from error
