"""What a whole machine is made of: the choices left to the engine, decided.  Pure."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from proa.errors import Invalid
from proa.isolation.vm import architectures
from proa.isolation.vm.settings import MIB, Settings, reach
from proa.spec import Hardware, Limits

ARM64 = "arm64"
BIOS, UEFI, SECURE_BOOT = "bios", "uefi", "secureboot"
PC, Q35, VIRT = "pc", "q35", "virt"  # the last is arm64's
LEAST_RAM_MIB = 16
LEGACY_IDE_CDROMS, SATA_CDROMS = 3, 4


@dataclass(frozen=True)
class Board:
    """A machine with nothing left open."""

    ram_bytes: int
    vcpus: int
    accelerator: str
    machine: str = Q35
    firmware: str = BIOS
    tpm: bool = False
    disk_bus: str = "virtio"
    nic: str = "virtio"
    macs: tuple[str, ...] = ()  # of its network cards
    display: str = "none"
    boot: str = "disk"
    uuid: str = ""
    architecture: str = "amd64"
    ram_maximum: int = 0  # how far it may grow while it runs, as `qemu.Machine`
    vcpus_maximum: int = 0


def decide(hardware: Hardware, limits: Limits, settings: Settings, boots_by: str) -> Board:
    """Choose what was not asked for; `boots_by` is the firmware the disk is made for.

    RAM is exactly what is asked for (whole MiB), processors the least whole number.
    Raises Invalid for what does not go together.
    """
    kind = architecture(hardware)
    firmware = hardware.firmware
    if firmware in ("", "auto"):
        firmware = UEFI if kind == ARM64 else boots_by
    machine = hardware.machine
    if machine in ("", "auto"):
        legacy = hardware.disk_bus == "ide" and firmware == BIOS
        machine = VIRT if kind == ARM64 else PC if legacy else Q35
    _check(hardware, machine, firmware)
    wanted = math.ceil(limits.memory_bytes / MIB) or settings.memory_mib
    ram_mib = max(wanted, LEAST_RAM_MIB)
    vcpus = max(1, min(math.ceil(limits.cpus), os.cpu_count() or 1))
    new = machine == Q35 and (hardware.disk_bus or "virtio") == "virtio"  # else for old systems
    most_mib, most_vcpus = reach(ram_mib, vcpus) if new else (0, 0)
    return Board(
        ram_bytes=ram_mib * MIB,
        vcpus=vcpus,
        ram_maximum=most_mib * MIB,
        vcpus_maximum=most_vcpus,
        accelerator=hardware.accelerator,
        machine=machine,
        firmware=firmware,
        tpm=hardware.tpm,
        disk_bus=hardware.disk_bus or "virtio",
        nic=hardware.nic or "virtio",
        display=hardware.display or "none",
        boot=hardware.boot or "disk",
        architecture=kind,
    )


def architecture(hardware: Hardware) -> str:
    """The processor of a whole machine: what is asked for, else the host's.  Raises Invalid."""
    asked = hardware.platform.removeprefix("linux/").partition("/")[0]
    kind = {"x86_64": "amd64", "aarch64": ARM64}.get(asked, asked)
    if not kind:
        kind = ARM64 if hardware.machine == VIRT else architectures.HOST
    if hardware.machine not in ("", "auto") and (hardware.machine == VIRT) != (kind == ARM64):
        raise Invalid(f"the machine '{hardware.machine}' is not for '{kind}'")
    return kind


def _check(hardware: Hardware, machine: str, firmware: str) -> None:
    if machine not in (PC, Q35, VIRT):
        raise Invalid(f"no whole machine is made as '{machine}'", hint="pc, q35 or virt")
    if machine == VIRT and firmware != UEFI:
        raise Invalid(f"the machine 'virt' has no firmware '{firmware}'", hint="it has uefi")
    if machine == VIRT and hardware.disk_bus == "sata":
        raise Invalid("the machine 'virt' has no bus 'sata'", hint="virtio, scsi or nvme")
    if firmware == SECURE_BOOT and machine != Q35:
        raise Invalid(f"secure boot needs the machine 'q35', not '{machine}'")
    if hardware.disk_bus == "ide" and machine != PC:
        raise Invalid("the bus 'ide' needs the machine 'pc'", hint="on q35 that is 'sata'")
    room = LEGACY_IDE_CDROMS if machine == PC else SATA_CDROMS
    if len(hardware.cdroms) > room:
        raise Invalid(f"'{len(hardware.cdroms)}' CDs are too many for '{machine}'", hint=f"{room}")
