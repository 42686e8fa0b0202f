"""A disk put together: partition table, boot loader, ESP with the kernel, root file system.

Everything is written into one sparse file, nothing is mounted but a view of the layers.  Names and
identifiers are made from the image's, so that the same image gives the same ones.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from proa.errors import Invalid, NoSpace
from proa.image.machine import boot, partition, tree
from proa.image.machine.command import program, run
from proa.image.machine.partition import Partition

MIB = 1 << 20
_CORE_START, _CORE_BYTES = 1 * MIB, 1 * MIB
_ESP_START = 2 * MIB
_ESP_LEAST, _ESP_ROOM = 64 * MIB, 8 * MIB  # FAT32 has a least size of its own
_END_BYTES = 1 * MIB
_ROOT_LEAST = 64 * MIB
_ROOM = 512 * MIB  # free space on a disk whose size nobody asked for
_INODE_BYTES, _INODE_RATIO = 256, 16384
_FEATURES = "^orphan_file,^metadata_csum_seed"  # what kernels and tools of 2020 do not know
_NAMESPACE = uuid.UUID("8c5c2e9e-5f2b-4d3a-9a55-6d0f3c1f7a10")


@dataclass(frozen=True)
class Kernel:
    """What the boot loader loads."""

    image: bytes
    initramfs: bytes
    options: str


@dataclass(frozen=True)
class Layout:
    """Where everything is, and how it is called."""

    image_id: str
    size_bytes: int
    esp_bytes: int

    def uuid(self, what: str) -> uuid.UUID:
        """An identifier that depends on the image alone."""
        return uuid.uuid5(_NAMESPACE, f"{self.image_id} {what}")

    @property
    def root_name(self) -> str:
        """The name of the root's partition, by which its init finds it."""
        return root_name(self.image_id)

    @property
    def root_start(self) -> int:
        """Where the root's partition begins."""
        return _ESP_START + self.esp_bytes

    @property
    def root_bytes(self) -> int:
        """The root partition's size."""
        return self.size_bytes - self.root_start - _END_BYTES

    @property
    def volume(self) -> str:
        """The serial number of the ESP's file system, as GRUB writes it."""
        text = self.uuid("volume").hex[:8].upper()
        return f"{text[:4]}-{text[4:]}"

    def partitions(self) -> tuple[Partition, ...]:
        """The table's rows."""
        names = ("bios", "esp", self.root_name)
        kinds = (partition.BIOS_BOOT, partition.EFI_SYSTEM, partition.LINUX_ROOT)
        places = (
            (_CORE_START, _CORE_BYTES),
            (_ESP_START, self.esp_bytes),
            (self.root_start, self.root_bytes),
        )
        rows = zip(names, kinds, places, strict=True)
        return tuple(Partition(name, kind, self.uuid(name), *place) for name, kind, place in rows)


def root_name(image_id: str) -> str:
    """The name of the root's partition of an image's disk."""
    return f"proa-{image_id.removeprefix('sha256:')[:16]}"


def plan_layout(image_id: str, kernel: Kernel, extent: tree.Extent, wanted_bytes: int) -> Layout:
    """Sizes of a disk.  `wanted_bytes` 0: as large as its content with some room.  Invalid."""
    loaded = len(kernel.image) + len(kernel.initramfs)
    esp = max(_ESP_LEAST, _whole(loaded + _ESP_ROOM))
    least = _ROOT_LEAST + extent.used_bytes + extent.used_bytes // 16
    least += 2 * extent.names * _INODE_BYTES
    fixed = _ESP_START + esp + _END_BYTES
    size = wanted_bytes or _whole(fixed + least + _ROOM)
    if size % partition.SECTOR or size < fixed + least:
        needed = _whole(fixed + least) // MIB
        raise Invalid(
            f"a disk of '{wanted_bytes}' bytes is too small for this image",
            hint=f"it needs {needed} MiB at least",
        )
    return Layout(image_id, size // MIB * MIB, esp)


def _whole(size: int) -> int:
    return -(-size // MIB) * MIB


def build(
    path: Path, layout: Layout, kernel: Kernel, root: int, extent: tree.Extent
) -> Iterator[str]:
    """Make the disk at `path`; gives a line ahead of each part.  `path.parent` is for scraps."""
    with path.open("xb") as file:
        file.truncate(layout.size_bytes)
    yield f"root file system: {layout.root_bytes // MIB} MiB of ext4"
    _make_root(path, layout, root, extent)
    yield "kernel and initramfs on the ESP"
    loader = boot.loader(layout.volume, _CORE_START, path.parent)
    _make_esp(path, layout, kernel, loader)
    yield "partition table and boot loader"
    _write_table(path, layout, loader)


def _make_root(path: Path, layout: Layout, root: int, extent: tree.Extent) -> None:
    identity = str(layout.uuid("root"))
    inodes = max(layout.root_bytes // _INODE_RATIO, extent.names * 5 // 4 + 1024)
    options = ",".join((
        f"offset={layout.root_start}", f"hash_seed={identity}", "lazy_itable_init=0",
        "assume_storage_prezeroed=1", "root_owner=0:0",
    ))  # fmt: skip
    run(
        [
            program("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", "-b", "4096",
            "-I", str(_INODE_BYTES), "-O", _FEATURES, "-N", str(inodes), "-U", identity, "-m", "1",
            "-E", options, "-d", f"/proc/self/fd/{root}", str(path), f"{layout.root_bytes >> 10}k",
        ],
        environment={"E2FSPROGS_FAKE_TIME": "1"},
        descriptors=(root,),
    )  # fmt: skip
    _settle_root(path, layout, root)


def _settle_root(path: Path, layout: Layout, root: int) -> None:
    """The root directory's own owner, mode and time, which `mke2fs -d` leaves out."""
    facts = os.fstat(root)
    fields = (
        ("mode", f"0{facts.st_mode:o}"), ("uid", facts.st_uid), ("gid", facts.st_gid),
        ("mtime", f"@{max(0, int(facts.st_mtime))}"),
    )  # fmt: skip
    script = path.parent / "root.debugfs"
    script.write_text("".join(f"sif / {name} {value}\n" for name, value in fields))
    disk = f"{path}?offset={layout.root_start}"
    run([program("debugfs", "e2fsprogs"), "-w", "-f", str(script), disk])


def _make_esp(path: Path, layout: Layout, kernel: Kernel, loader: boot.Loader) -> None:
    work = path.parent
    title = f"Proa {layout.image_id.removeprefix('sha256:')[:12]}"
    contents = {
        "proa/vmlinuz": kernel.image,
        "proa/initrd": kernel.initramfs,
        "grub/grub.cfg": boot.configuration(title, kernel.options).encode(),
        "EFI/BOOT/BOOTX64.EFI": loader.efi,
    }
    image = f"{path}@@{_ESP_START}"
    settings = {"MTOOLS_SKIP_CHECK": "1", "SOURCE_DATE_EPOCH": "315532800"}
    sectors = str(layout.esp_bytes // partition.SECTOR)
    serial = layout.volume.replace("-", "")
    mformat, mmd, mcopy = (program(name, "mtools") for name in ("mformat", "mmd", "mcopy"))
    run([mformat, "-i", image, "-F", "-T", sectors, "-h", "255", "-s", "63", "-v", "PROA",
         "-N", serial, "::"], environment=settings)  # fmt: skip
    run([mmd, "-i", image, "::proa", "::grub", "::EFI", "::EFI/BOOT"], environment=settings)
    for name, content in contents.items():
        scrap = work / name.rpartition("/")[2]
        scrap.write_bytes(content)
        os.utime(scrap, (315532800, 315532800))
        run([mcopy, "-m", "-i", image, str(scrap), f"::{name}"], environment=settings)
        scrap.unlink()


def _write_table(path: Path, layout: Layout, loader: boot.Loader) -> None:
    if len(loader.core) > _CORE_BYTES:
        raise NoSpace(f"the boot loader of '{len(loader.core)}' bytes does not fit its partition")
    table = partition.table(layout.uuid("disk"), layout.partitions(), layout.size_bytes)
    with path.open("r+b") as file:
        file.write(loader.sector + table.primary[len(loader.sector) :])
        file.seek(_CORE_START)
        file.write(loader.core)
        file.seek(layout.size_bytes - len(table.backup))
        file.write(table.backup)
