"""QEMU's command line for a whole machine, as a pure function of the board and its descriptors.

The first serial port is QEMU's standard input and output, which are the instance's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Invalid
from proa.isolation.vm import architectures, blocks, qemu
from proa.isolation.vm.layers import Opened
from proa.isolation.vm.whole import qga
from proa.isolation.vm.whole.board import PC, Q35, SECURE_BOOT, VIRT, Board

DISK = "disk"
AGENT, GUEST_AGENT = "c", "g"  # the ports of our agent and of QEMU's


@dataclass(frozen=True)
class Wires:
    """Descriptors as QEMU knows them, -1 for none.

    `nvram` is the writable part of a UEFI firmware, whose code is the file `code`.
    """

    control: int
    channel: int
    disk: Opened
    cdroms: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    nvram: int = -1
    code: Path | None = None
    tpm: int = -1
    folders: int = -1
    shares: bool = False
    guest_agent: int = -1
    seed: int = -1


def arguments(board: Board, wires: Wires, cache: blocks.Cache) -> tuple[str, ...]:
    """The whole argument list, program first."""
    return (
        qemu.program(board.architecture), "-nodefaults", "-no-user-config", "-display", "none",
        "-sandbox", qemu.SANDBOX,
        "-chardev", f"socket,id=q,fd={wires.control}", "-mon", "chardev=q,mode=control",
        *_board(board, wires), *_firmware(wires),
        "-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
        "-device", "virtio-serial-pci,id=vs,max_ports=4",
        "-chardev", f"socket,id={AGENT},fd={wires.channel}",
        "-device", f"virtserialport,chardev={AGENT},name={qemu.CHANNEL}",
        "-chardev", f"socket,id={GUEST_AGENT},fd={wires.guest_agent}",
        "-device", f"virtserialport,chardev={GUEST_AGENT},name={qga.PORT}",
        "-object", "rng-builtin,id=random", "-device", "virtio-rng-pci,rng=random",
        *_disk(board, wires.disk, cache), *_cdroms(board, wires.cdroms), *_seed(board, wires),
        *_network(board, wires.taps), *_tpm(board, wires.tpm), *_display(board),
        *_shares(wires), *_late(board),
    )  # fmt: skip


def _board(board: Board, wires: Wires) -> tuple[str, ...]:
    accelerator, cpu = board.accelerator, "host"
    if board.accelerator == "tcg":
        accelerator = f"tcg,tb-size={qemu.TRANSLATION_CACHE_MIB * 4}"
        cpu = architectures.ALL[board.architecture].cpu
    machine = [board.machine, "memory-backend=ram", "dump-guest-core=off"]
    if board.machine == VIRT:
        machine.append("gic-version=max")
    else:
        machine += ["vmport=off", f"smm={'on' if board.firmware == SECURE_BOOT else 'off'}"]
        if board.display == "none":
            machine.append("graphics=off")  # the firmware then speaks on the serial port
    if wires.nvram >= 0:
        machine += ["pflash0=code", "pflash1=nvram"]
    memory = f"id=ram,size={board.ram_bytes}"
    backend = f"memory-backend-memfd,{memory},share=on"
    if wires.folders < 0:
        backend = f"memory-backend-ram,{memory}"
    return (
        "-accel", accelerator, "-cpu", cpu, "-M", ",".join(machine), "-object", backend,
        *_sizes(board), "-rtc", "base=utc",
        "-uuid", board.uuid, "-boot", "menu=off,strict=on",
        *(("-global", "ICH9-LPC.disable_s3=1") if board.machine == Q35 else ()),
        *(("-global", "driver=cfi.pflash01,property=secure,value=on")
          if board.firmware == SECURE_BOOT else ()),
    )  # fmt: skip


def _sizes(board: Board) -> tuple[str, ...]:
    most = board.vcpus_maximum
    later = f",maxmem={board.ram_maximum >> 20}M" if board.ram_maximum else ""
    room = f",sockets={most},cores=1,threads=1,maxcpus={most}" if most else ""
    return ("-m", f"{board.ram_bytes >> 20}M{later}", "-smp", f"{board.vcpus}{room}")


BALLOON = "virtio-balloon-pci,free-page-reporting=on"


def _firmware(wires: Wires) -> tuple[str, ...]:
    if wires.nvram < 0:
        return ()
    code = {
        "driver": "raw", "node-name": "code", "read-only": True,
        "file": {"driver": "file", "filename": str(wires.code), "locking": "off"},
    }  # fmt: skip
    return ("-blockdev", json.dumps(code), *_raw("nvram", wires.nvram, readonly=False))


def _raw(name: str, descriptor: int, *, readonly: bool) -> tuple[str, ...]:
    node = {
        "driver": "raw", "node-name": name, "read-only": readonly,
        "file": {"driver": "file", "filename": f"/dev/fdset/{descriptor}", "locking": "off"},
    }  # fmt: skip
    return ("-add-fd", f"fd={descriptor},set={descriptor}", "-blockdev", json.dumps(node))


def _disk(board: Board, opened: Opened, cache: blocks.Cache) -> tuple[str, ...]:
    node = blocks.node(DISK, opened.numbers[0])
    order = 2 if board.boot == "cdrom" else 1
    common = f"drive={node},bootindex={order}{blocks.device(cache)}"
    sata = ("-device", f"ide-hd,id={DISK},bus=ide.0,{common}")
    devices = {
        "virtio": ("-device", f"virtio-blk-pci,id={DISK},{common}"),
        "nvme": ("-device", f"nvme,id={DISK},serial={DISK},{common}"),
        "scsi": ("-device", "virtio-scsi-pci,id=scsi", "-device",
                 f"scsi-hd,id={DISK},bus=scsi.0,{common}"),
        "ide": sata,
        "sata": sata if board.machine != PC else (
            "-device", "ich9-ahci,id=ahci", "-device", f"ide-hd,id={DISK},bus=ahci.0,{common}"),
    }  # fmt: skip
    return (*blocks.arguments(DISK, opened, cache), *devices[board.disk_bus])


def _cdrom_places(board: Board) -> tuple[str, ...]:
    """Two buses of two on a pc, one bus each on q35; arm64's machine gets SCSI for them."""
    if board.machine == VIRT:
        return tuple(f"scsi-cd,bus=cds.0,lun={number}" for number in range(1, 5))
    if board.machine != PC:
        return tuple(f"ide-cd,bus=ide.{number}" for number in range(2, 6))
    return tuple(
        f"ide-cd,bus={place}" for place in ("ide.1,unit=0", "ide.1,unit=1", "ide.0,unit=1")
    )


def _cdroms(board: Board, descriptors: tuple[int, ...]) -> tuple[str, ...]:
    first = 1 if board.boot == "cdrom" else 2
    words: list[str] = []
    if board.machine == VIRT and descriptors:
        words += ("-device", "virtio-scsi-pci,id=cds")
    places = zip(_cdrom_places(board), descriptors, strict=False)
    for number, (place, descriptor) in enumerate(places):
        order = first if number == 0 else number + 2
        words += _raw(f"cd{number}", descriptor, readonly=True)
        words += ("-device", f"{place},id=cd{number},drive=cd{number},bootindex={order}")
    return tuple(words)


def _seed(board: Board, wires: Wires) -> tuple[str, ...]:
    """What cloud-init reads, where the disk's driver finds it too, else on the last CD."""
    if wires.seed < 0:
        return ()
    places = _cdrom_places(board)
    device = places[-1]
    if board.disk_bus == "virtio" or board.machine == VIRT:
        device = "virtio-blk-pci"
    elif board.disk_bus == "scsi":
        device = "scsi-cd,bus=scsi.0"
    elif len(wires.cdroms) == len(places):
        raise Invalid("no drive is left for cloud-init's disk", hint="--cloud-init none")
    raw = _raw("seed", wires.seed, readonly=True)
    return (*raw, "-device", f"{device},id=seed,drive=seed")


NICS = {"virtio": "virtio-net-pci", "e1000": "e1000", "rtl8139": "rtl8139"}


def _network(board: Board, taps: tuple[int, ...]) -> tuple[str, ...]:
    words: list[str] = []
    for number, (tap, mac) in enumerate(zip(taps, board.macs, strict=True)):
        name = f"eth{number}"  # the engine's, as of those plugged later
        card = f"{NICS[board.nic]},id=nic-{name},netdev=net-{name},romfile=,mac={mac}"
        words += ("-netdev", f"tap,id=net-{name},fd={tap}", "-device", card)
    return tuple(words)


def _tpm(board: Board, descriptor: int) -> tuple[str, ...]:
    if descriptor < 0:
        return ()
    device = "tpm-tis-device" if board.machine == VIRT else "tpm-tis"
    return (
        "-chardev", f"socket,id=t,fd={descriptor}",
        "-tpmdev", "emulator,id=tpm,chardev=t", "-device", f"{device},tpmdev=tpm",
    )  # fmt: skip


def _display(board: Board) -> tuple[str, ...]:
    """A screen nobody sees yet, and what points on it: a tablet says where, a mouse how far."""
    if board.display == "none":
        return ()
    card = {"std": "VGA", "virtio": "virtio-vga"}[board.display]
    keyboard: tuple[str, ...] = ()
    if board.machine == VIRT:  # it has no VGA, and no keyboard but on USB
        card = {"std": "ramfb", "virtio": "virtio-gpu-pci"}[board.display]
        keyboard = ("-device", "usb-kbd,bus=usb.0")
    return (
        "-device", f"{card},id=screen", "-vnc", "none",
        "-device", "qemu-xhci,id=usb", "-device", "usb-tablet,bus=usb.0", *keyboard,
    )  # fmt: skip


def _late(board: Board) -> tuple[str, ...]:
    """Room for devices that come later, which a pc has as it is; where memory may come and go, what
    its system does not use goes back to the host."""
    late = () if board.machine == PC else architectures.ALL[board.architecture].late
    late = (*late, BALLOON) if board.ram_maximum else late
    return tuple(word for device in late for word in ("-device", device))


def _shares(wires: Wires) -> tuple[str, ...]:
    """All shares in one device, as in an image's vm: each a directory with its number."""
    if not wires.shares:
        return ()
    if wires.folders >= 0:
        return (
            "-chardev", f"socket,id=s,fd={wires.folders}",
            "-device", f"vhost-user-fs-pci,chardev=s,tag={qemu.SHARES_TAG},queue-size=1024",
        )  # fmt: skip
    served = f"local,id=s,path={qemu.SHARES_PATH},security_model=passthrough,multidevs=remap"
    return ("-fsdev", served, "-device", f"virtio-9p-pci,fsdev=s,mount_tag={qemu.SHARES_TAG}")
