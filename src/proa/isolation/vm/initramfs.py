"""The guest's first file system: init, the modules it loads, empty mount points.  Pure bytes."""

from __future__ import annotations

import stat
from collections.abc import Container, Iterable
from dataclasses import dataclass

MAGIC = b"070701"
ALIGNMENT = 4
DIRECTORIES = (
    "dev",
    "proc",
    "sys",
    "run",
    "lib",
    "mnt",
    "mnt/image",
    "mnt/disk",
    "mnt/shares",
    "mnt/root",
    "tmp",
    "etc",
)
CONSOLE = (5, 1)


@dataclass(frozen=True)
class Entry:
    """One member of the archive; `mode` includes the file type."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def archive(entries: Iterable[Entry]) -> bytes:
    """The cpio archive (`newc`) of these entries: root-owned, undated, the same every time."""
    parts = [_member(number, entry) for number, entry in enumerate(entries, 1)]
    parts.append(_member(0, Entry("TRAILER!!!", 0)))
    return b"".join(parts)


def build(
    init: bytes,
    modules: Iterable[tuple[str, bytes]],
    files: Iterable[tuple[str, bytes]] = (),
    required: Container[str] | None = None,
) -> bytes:
    """The initramfs of a guest; `modules` are names with contents, in the order to load them.

    Only the `required` ones must load; by default all of them.
    """
    loaded = list(modules)
    entries = [Entry(name, stat.S_IFDIR | 0o755) for name in DIRECTORIES]
    entries.append(Entry("dev/console", stat.S_IFCHR | 0o600, device=CONSOLE))
    entries += [Entry(f"lib/{name}.ko", stat.S_IFREG | 0o644, data) for name, data in loaded]
    marks = ("" if required is None or name in required else "-" for name, _ in loaded)
    lines = zip(marks, loaded, strict=True)
    listing = "".join(f"{mark}/lib/{name}.ko\n" for mark, (name, _) in lines).encode()
    entries.append(Entry("modules", stat.S_IFREG | 0o644, listing))
    entries += [Entry(name, stat.S_IFREG | 0o644, data) for name, data in files]
    entries.append(Entry("init", stat.S_IFREG | 0o755, init))
    return archive(entries)


def _member(number: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number,
        entry.mode,
        0,
        0,
        links,
        0,
        len(entry.content),
        0,
        0,
        *entry.device,
        len(name),
        0,
    )
    header = MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.content)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % ALIGNMENT)
