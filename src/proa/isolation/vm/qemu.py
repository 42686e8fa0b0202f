"""QEMU's command line, as a pure function of the machine, the files and how it starts.

A template and its clones must have the same machine, devices and order of devices: both come from
`arguments`, and only the `Start` differs.  Every file is a descriptor the process was born with,
so QEMU needs no path, and its `-sandbox` and mount namespace can deny it the rest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from proa.isolation.vm import architectures, blocks
from proa.isolation.vm.layers import Opened

CHANNEL = "proa.agent"
DISK = "disk"  # the instance's own: name of the device, of the chain
SHARES_TAG = "shares"
VIRTIOFS = "virtiofs"
SHARES_PATH = "/shares"
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
# Room above 4 GiB would make the kernel keep 64 MiB of bounce buffers, which virtio has no use for.
MEMORY_LATER = (
    "swiotlb=noforce memhp_default_state=online memory_hotplug.online_policy=auto-movable"
)
TRANSLATION_CACHE_MIB = 64
BACKED = ("qcow2", "vmdk")  # formats whose header may name another file below


@dataclass(frozen=True)
class Machine:
    """The shape of a machine: everything a template and its clones share.

    It may grow to `ram_maximum` and `vcpus_maximum` while it runs; 0: not at all.
    `kernel` is the key of one that somebody named (`prepared.py`), empty for the engine's.
    """

    ram_bytes: int
    vcpus: int = 1
    network: bool = True
    accelerator: str = "tcg"
    tsc_khz: int = 0
    ram_maximum: int = 0
    vcpus_maximum: int = 0
    architecture: str = architectures.HOST
    options: str = ""  # of the board; empty: all that are wanted
    kernel: str = ""
    cpu: str = ""  # the model; empty: the host's own, or all the emulation has

    def key(self) -> str:
        """All of the shape in one line, for a template's cache key."""
        files = Files(0, 0, 0, Opened.single(0), 0, 0)
        return " ".join(arguments(self, files, Clone())) + f" tsc={self.tsc_khz}"

    def command_line(self) -> str:
        """The kernel's command line; a single processor under TCG needs no APIC timer check."""
        words = [architectures.ALL[self.architecture].command_line]
        if self.accelerator == "tcg" and max(self.vcpus, self.vcpus_maximum) == 1:
            words.append("noapictimer")
        if self.ram_maximum:
            words.append(MEMORY_LATER)
        if self.tsc_khz:
            words.append(f"tsc_early_khz={self.tsc_khz}")
        return " ".join(words)


@dataclass(frozen=True)
class Files:
    """Descriptors QEMU inherits, -1 for none, and the one path.

    `memory` holds the RAM: a template's while it is made, or what a clone sees privately.
    `folders` is a virtiofs server's, which shares the RAM, then of its own; else 9p has `shares`.
    The image may be an overlay of ours over the files of `below`.
    `format` is the image's; one that is not raw is a stranger's disk, and so is a `writable` one.
    """

    control: int
    channel: int
    image: int
    disk: Opened
    tap: int = -1
    memory: int = -1
    shares: str = SHARES_PATH
    format: str = "raw"
    writable: bool = False
    folders: int = -1
    cache: blocks.Cache = blocks.WRITEBACK
    below: Opened = field(default_factory=Opened.none)

    def descriptors(self) -> tuple[int, ...]:
        """All of them that are there."""
        numbers = (self.control, self.channel, self.image, *self.disk.descriptors, self.tap,
                   self.memory, self.folders)  # fmt: skip
        return tuple(number for number in numbers if number >= 0)


@dataclass(frozen=True)
class Boot:
    """Start the kernel."""

    kernel: str
    initramfs: str


@dataclass(frozen=True)
class Clone:
    """Wait for a template's device state.

    `shared` writes to the RAM's file (to make a further template), `paused` waits for `cont`,
    `bare` is for a state without the section that names the machine (`checkpoint.py`).
    """

    shared: bool = False
    paused: bool = False
    bare: bool = False


Start = Boot | Clone


def arguments(machine: Machine, files: Files, start: Start) -> tuple[str, ...]:
    """The whole argument list, program first."""
    return (
        program(machine.architecture), "-nodefaults", "-no-user-config", "-display", "none",
        "-no-reboot", "-sandbox", SANDBOX,
        "-chardev", f"socket,id=q,fd={files.control}", "-mon", "chardev=q,mode=control",
        *_board(machine), *_memory(machine, files, start), *_devices(machine, files, start),
        *_start(machine, start),
    )  # fmt: skip


def program(architecture: str = architectures.HOST) -> str:
    """The QEMU for an architecture."""
    return str(architectures.ALL[architecture].program)


def _board(machine: Machine) -> tuple[str, ...]:
    kind = architectures.ALL[machine.architecture]
    accelerator, cpu = machine.accelerator, "host"
    if machine.accelerator == "tcg":
        accelerator, cpu = f"tcg,tb-size={TRANSLATION_CACHE_MIB}", kind.cpu
    options = machine.options or ",".join(kind.options)
    return (
        "-accel", accelerator, "-cpu", machine.cpu or cpu,
        "-M", f"{kind.machine},memory-backend=ram,{options}",
        "-m", _ram(machine), "-smp", _processors(machine),
    )  # fmt: skip


def _ram(machine: Machine) -> str:
    room = f",maxmem={machine.ram_maximum >> 20}M" if machine.ram_maximum else ""
    return f"{machine.ram_bytes >> 20}M{room}"


def _processors(machine: Machine) -> str:
    most = machine.vcpus_maximum
    room = f",sockets={most},cores=1,threads=1,maxcpus={most}" if most else ""
    return f"{machine.vcpus}{room}"


def _memory(machine: Machine, files: Files, start: Start) -> tuple[str, ...]:
    size = f"id=ram,size={machine.ram_bytes}"
    if files.folders >= 0:
        return ("-object", f"memory-backend-memfd,{size},share=on")
    if files.memory < 0:
        return ("-object", f"memory-backend-ram,{size}")
    share = "on" if isinstance(start, Boot) or start.shared else "off"
    path = f"/proc/self/fd/{files.memory}"
    return ("-object", f"memory-backend-file,{size},mem-path={path},share={share}")


def _devices(machine: Machine, files: Files, start: Start) -> tuple[str, ...]:
    """Every slot a clone may need, always present and always in this order."""
    result = [
        "-device", "virtio-serial-pci,id=vs,max_ports=2",
        "-chardev", f"socket,id=c,fd={files.channel}",
        "-device", f"virtserialport,chardev=c,name={CHANNEL}",
        *_image(files), *_disk(files),
        *_shares(files), *_late(machine),
    ]  # fmt: skip
    if (
        isinstance(start, Boot) and files.memory < 0
    ):  # of no template: what the guest frees goes back to the host (decision 020)
        result += ["-device", "virtio-balloon-pci,free-page-reporting=on"]
    if machine.network:
        result += [
            "-netdev",
            f"tap,id=n,fd={files.tap}",
            "-device",
            "virtio-net-pci,netdev=n,romfile=,mac=52:54:00:00:00:01",
        ]
    return tuple(result)


def _late(machine: Machine) -> tuple[str, ...]:
    late = architectures.ALL[machine.architecture].late
    return tuple(word for device in late for word in ("-device", device))


def _shares(files: Files) -> tuple[str, ...]:
    if files.folders >= 0:
        return (
            "-chardev", f"socket,id=s,fd={files.folders}",
            "-device", f"vhost-user-fs-pci,chardev=s,tag={SHARES_TAG},queue-size=1024",
        )  # fmt: skip
    return (
        "-fsdev", f"local,id=s,path={files.shares},security_model=passthrough,multidevs=remap",
        "-device", f"virtio-9p-pci,fsdev=s,mount_tag={SHARES_TAG}",
    )  # fmt: skip


def _image(files: Files) -> tuple[str, ...]:
    """The first disk.  A stranger's may name other files, which are never opened."""
    if files.below.descriptors:
        chain = files.below.under(files.image)
        top = blocks.node("image", chain.numbers[0])
        words = blocks.arguments("image", chain, blocks.WRITEBACK)
        return (*words, "-device", f"virtio-blk-pci,drive={top}")
    if files.format == "raw":
        return _plain_image(files.image, "off" if files.writable else "on")
    node: dict[str, object] = {
        "driver": files.format, "node-name": "image", "read-only": not files.writable,
        "file": {"driver": "file", "filename": "/dev/fdset/1", "locking": "off"},
    }  # fmt: skip
    if files.format in BACKED:
        node["backing"] = None
    return (
        "-add-fd", f"fd={files.image},set=1", "-blockdev", json.dumps(node),
        "-device", "virtio-blk-pci,drive=image",
    )  # fmt: skip


def _plain_image(descriptor: int, readonly: str) -> tuple[str, ...]:
    return (
        "-add-fd", f"fd={descriptor},set=1",
        "-blockdev", f"driver=raw,node-name=image,read-only={readonly},file.driver=file,"
                     "file.filename=/dev/fdset/1,file.locking=off",
        "-device", "virtio-blk-pci,drive=image",
    )  # fmt: skip


def _disk(files: Files) -> tuple[str, ...]:
    """The instance's own disk: a chain of files of ours."""
    top = blocks.node(DISK, files.disk.numbers[0])
    return (
        *blocks.arguments(DISK, files.disk, files.cache),
        "-device", f"virtio-blk-pci,drive={top},id={DISK}{blocks.device(files.cache)}",
    )  # fmt: skip


def _start(machine: Machine, start: Start) -> tuple[str, ...]:
    if isinstance(start, Clone):
        bare = ("-global", "migration.send-configuration=off") if start.bare else ()
        return ("-incoming", "defer", *(("-S",) if start.paused else ()), *bare)
    return ("-kernel", start.kernel, "-initrd", start.initramfs, "-append", machine.command_line())
