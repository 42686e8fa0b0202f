"""Kernel modules: what a guest needs, in the order to load them.

Dependencies are read from the modules themselves (their `.modinfo` section), so a package that was
unpacked and never installed, hence never seen by depmod, does as well as an installed kernel.
"""

from __future__ import annotations

import gzip
import io
import lzma
import subprocess
from dataclasses import dataclass
from pathlib import Path

from proa.errors import HostError, Unsupported

REQUIRED = (
    "virtio_pci", "virtio_console", "virtio_blk", "virtio_net",
    "crc32c_generic", "erofs", "ext4", "overlay",
)  # fmt: skip
SHARES = ("9pnet_virtio", "9p")  # a kernel of the engine's choice has them, too
OPTIONAL = ("af_packet", "virtiofs", "virtio_mem", "virtio_balloon")
# What the disks and links of other machines take; a kernel may lack some.
DRIVERS = (
    "virtio_pci", "virtio_mmio", "virtio_blk", "virtio_scsi", "virtio_net", "sd_mod", "ahci",
    "ata_piix", "nvme", "mptspi", "vmw_pvscsi", "hv_storvsc", "xen_blkfront", "e1000", "e1000e",
    "8139cp", "vmxnet3", "hv_netvsc", "xen_netfront", "crc32c_generic", "ext4",
    "9pnet_virtio", "9p", "virtiofs", "button", "evdev",
)  # fmt: skip
FILE_SYSTEMS = {
    "ext4": (), "xfs": ("xfs",), "btrfs": ("btrfs",),
    "vfat": ("vfat", "nls_cp437", "nls_ascii", "nls_utf8"),
}  # fmt: skip
MAXIMUM_BYTES = 64 << 20
SUFFIXES = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")


@dataclass(frozen=True)
class Tree:
    """One kernel's modules below `/lib/modules/RELEASE`: files by name, and what is built in."""

    files: dict[str, Path]
    builtin: frozenset[str]


def scan(directory: Path) -> Tree:
    """The modules of a `/lib/modules/RELEASE` directory."""
    files = {
        name_of(path.name): path
        for path in directory.rglob("*.ko*")
        if path.name.endswith(SUFFIXES)
    }
    listing = directory / "modules.builtin"
    lines = listing.read_text().split() if listing.is_file() else []
    return Tree(files, frozenset(name_of(line.rsplit("/", 1)[-1]) for line in lines))


def order(
    tree: Tree, required: tuple[str, ...] = REQUIRED, optional: tuple[str, ...] = OPTIONAL
) -> tuple[str, ...]:
    """Names to load, each after what it depends on.  Raises Unsupported when one is missing."""
    wanted = required + tuple(name for name in optional if name in tree.files)
    result: list[str] = []
    for name in wanted:
        _visit(tree, name, result, ())
    return tuple(result)


def _visit(tree: Tree, name: str, result: list[str], path: tuple[str, ...]) -> None:
    if name in result or name in tree.builtin or name in path:
        return
    if name not in tree.files:
        raise Unsupported(f"the kernel has no module '{name}'")
    for dependency in dependencies(read(tree.files[name])):
        _visit(tree, dependency, result, (*path, name))
    result.append(name)


def dependencies(module: bytes) -> tuple[str, ...]:
    """Names a module says it depends on."""
    start = module.find(b"\0depends=")
    if start < 0:
        return ()
    end = module.index(b"\0", start + 1)
    names = module[start + len(b"\0depends=") : end].decode().split(",")
    return tuple(name_of(name) for name in names if name)


def read(path: Path) -> bytes:
    """A module's bytes, decompressed, at most MAXIMUM_BYTES of them."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.LZMADecompressor().decompress(data, MAXIMUM_BYTES)
    if path.suffix == ".gz":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(MAXIMUM_BYTES)
    if path.suffix == ".zst":
        return filter_through(("sh", "-c", f"zstd -dc | head -c {MAXIMUM_BYTES}"), data)
    return data


def filter_through(command: tuple[str, ...], data: bytes) -> bytes:
    """What a program makes of `data`.  Raises HostError with its complaint."""
    try:
        done = subprocess.run(command, input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise HostError(f"no program '{command[0]}'", hint=f"install '{command[0]}'") from None
    if not done.stdout:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise HostError(f"'{' '.join(command)}' failed with {done.returncode}: {said}")
    return done.stdout


def name_of(file_name: str) -> str:
    """A module's name by that of its file."""
    return file_name.split(".ko", 1)[0].replace("-", "_")
