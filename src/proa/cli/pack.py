"""A local tree written as a tar stream."""

from __future__ import annotations

import os
import tarfile
from typing import IO, cast

TYPE_CHECKING = False
if TYPE_CHECKING:
    from proa.client.connection import Upload

BUFFER_BYTES = 256 * 1024


def pack(to: Upload, path: str, name: str, *, follow: bool, keep_owner: bool) -> None:
    """Write `path` and all below it, renamed to `name`; without a name, only what is below.

    `follow` applies to `path` itself, never below it.
    """
    stream = cast("IO[bytes]", to)  # a stream archive only ever calls write
    with tarfile.open(
        fileobj=stream, mode="w|", bufsize=BUFFER_BYTES, format=tarfile.PAX_FORMAT
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
