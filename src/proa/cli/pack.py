"""A local tree written as a tar stream."""

# ruff: noqa: PTH  (paths are bytes on their way into an archive, not objects)

from __future__ import annotations

import os
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.client.connection import Upload

BUFFER_BYTES = 256 * 1024


def pack(to: Upload, path: str, name: str, *, follow: bool, keep_owner: bool) -> None:
    """Write `path` and all below it, renamed to `name`; without a name, only what is below.

    `follow` applies to `path` itself, never below it.
    """
    with tarfile.open(
        fileobj=to,  # type: ignore[arg-type]  # a stream archive only ever calls write
        mode="w|",
        bufsize=BUFFER_BYTES,
        format=tarfile.PAX_FORMAT,
    ) as archive:
        if name:
            _add(archive, os.path.realpath(path) if follow else path, name, keep_owner)
        else:
            for entry in sorted(os.listdir(path)):
                _add(archive, os.path.join(path, entry), entry, keep_owner)


def _add(archive: tarfile.TarFile, path: str, name: str, keep_owner: bool) -> None:
    entry = archive.gettarinfo(path, name)
    if entry is None:
        return  # a socket, which an archive cannot hold
    if not keep_owner:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
    if entry.isreg():
        with open(path, "rb") as file:
            archive.addfile(entry, file)
        return
    archive.addfile(entry)
    if entry.isdir():
        for child in sorted(os.listdir(path)):
            _add(archive, os.path.join(path, child), f"{name}/{child}", keep_owner)
