"""The `Proa` object of a create request: what machine a vm is to be.  Pure.

Its keys are the fields of `spec.Hardware` in CamelCase; a key that is none of them is refused.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import Any

from proa.engine.fields import Fields
from proa.errors import Invalid
from proa.spec import EMPTY, Hardware

CHOICES: dict[str, tuple[str, ...]] = {
    "format": ("raw", "qcow2", "vmdk", "vhdx", "vdi"),
    "boot": ("disk", "cdrom"),
    "machine": ("auto", "pc", "q35", "microvm", "virt"),
    "firmware": ("auto", "bios", "uefi", "secureboot"),
    "disk_bus": ("virtio", "ide", "sata", "nvme", "scsi"),
    "nic": ("virtio", "e1000", "rtl8139"),
    "display": ("none", "std", "virtio"),
    "accelerator": ("auto", "kvm", "tcg"),
    "cache": ("writeback", "none", "writethrough", "unsafe"),
    "shares": ("auto", "9p", "virtiofs"),
    "start": ("auto", "boot", "template"),
}
CDROMS_MAXIMUM = 4
NO_SEED = "none"
CPU_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
CLOUD_INIT_MAXIMUM_BYTES = 1 << 20
DISK_MAXIMUM_BYTES = 16 << 40
SECTOR_BYTES = 512
PAUSE_IDLE_MAXIMUM = 10 * 366 * 86400


def key(field: str) -> str:
    """A field's name in the API."""
    return "".join(word.capitalize() for word in field.split("_"))


def parse(body: Any) -> Hardware:
    """The `Hardware` of a create body.  Raises Invalid, naming the field."""
    given = Fields(body).fields("Proa")
    kinds = {key(item.name): (item.name, item.default) for item in fields(Hardware)}
    values: dict[str, Any] = {}
    for name in given.names():
        if name not in kinds:
            raise Invalid(f"unknown field 'Proa.{name}'", hint=f"known are {', '.join(kinds)}")
        field, default = kinds[name]
        values[field] = _value(given, name, default)
    hardware = Hardware(**values)
    _check(hardware)
    return hardware


# What only a machine that boots a disk of its own has.
WHOLE_ONLY = ("format", "cdroms", "boot", "firmware", "tpm", "disk_bus", "nic",
              "cloud_init", "cloud_init_network")  # fmt: skip
CONTAINER_TOO = ("platform", "pause_idle_seconds")
# What only a vm of an image has: a machine with a disk of its own boots what is on that.
IMAGE_ONLY = ("start", "kernel", "cpu")


def check_image(hardware: Hardware, *, machine: bool) -> None:
    """Refuse what the instance of an ordinary image cannot have, as a vm (`machine`) or else.

    Raises Invalid.
    """
    for item in fields(Hardware):
        value = getattr(hardware, item.name)
        whole = item.name in WHOLE_ONLY and value not in ("", "auto", "bios")
        if value == item.default or (machine and not whole):
            continue
        if whole or item.name not in CONTAINER_TOO:
            what = "a machine with a disk of its own" if whole else "a vm"
            raise Invalid(
                f"'{key(item.name)}' is for {what}", hint="name a disk" if whole else "add --vm"
            )


def check_whole(hardware: Hardware) -> None:
    """Refuse what a machine that boots a disk of its own cannot have.  Raises Invalid."""
    for name in IMAGE_ONLY:
        if getattr(hardware, name) not in ("", "auto", "boot"):
            raise Invalid(
                f"'{key(name)}' is for a vm of an image", hint="a disk boots what is on it"
            )


def _value(given: Fields, name: str, default: object) -> Any:
    if isinstance(default, bool):
        return given.boolean(name)
    if isinstance(default, int):
        return given.integer(name)
    return given.strings(name) if isinstance(default, tuple) else given.text(name)


def _check(hardware: Hardware) -> None:
    for field, allowed in CHOICES.items():
        value = getattr(hardware, field)
        if value and value not in allowed:
            raise Invalid(f"unknown {field.replace('_', ' ')} '{value}'", hint=", ".join(allowed))
    for path in (hardware.disk, *hardware.cdroms):
        if path and path != EMPTY and not path.startswith("/"):
            raise Invalid(f"the disk '{path}' must be an absolute path")
    if hardware.cpu and not CPU_MODEL.fullmatch(hardware.cpu):
        raise Invalid(f"'{hardware.cpu}' names no processor model", hint="one of `qemu -cpu help`")
    if hardware.kernel and not hardware.kernel.startswith("/"):
        raise Invalid(f"the kernel '{hardware.kernel}' must be an absolute path")
    size = hardware.disk_bytes
    if not 0 <= size <= DISK_MAXIMUM_BYTES or size % SECTOR_BYTES:
        raise Invalid(f"a disk of '{size}' bytes is not made", hint="a multiple of 512, up to 16t")
    if not -1 <= hardware.pause_idle_seconds <= PAUSE_IDLE_MAXIMUM:
        raise Invalid(
            f"'{hardware.pause_idle_seconds}' seconds are no time to pause the idle after"
        )
    if len(hardware.cdroms) > CDROMS_MAXIMUM:
        raise Invalid(f"'{len(hardware.cdroms)}' CDs are too many", hint=f"up to {CDROMS_MAXIMUM}")
    for text in (hardware.cloud_init, hardware.cloud_init_network):
        if len(text.encode()) > CLOUD_INIT_MAXIMUM_BYTES:
            raise Invalid("the cloud-init data is larger than 1 MiB")
    if hardware.cloud_init == NO_SEED and hardware.cloud_init_network:
        raise Invalid("without a seed nobody reads 'Proa.CloudInitNetwork'")
