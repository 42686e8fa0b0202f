"""OCI layouts as directories: sent as a tar, received as one."""

from __future__ import annotations

import os
import shutil
import tarfile

from proa.errors import Corrupt, Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from proa.client.connection import Answer, Upload

_PIECE_BYTES = 1 << 20
_BLOBS = "blobs/sha256/"


def send(path: str, to: Upload) -> None:
    """The files of a layout, the documents that name the others last."""
    tops = [name for name in ("index.json", "oci-layout") if os.path.isfile(f"{path}/{name}")]
    if "index.json" not in tops:
        raise Invalid(f"'{path}' is no OCI layout: it has no 'index.json'")
    folder = f"{path}/{_BLOBS}"
    blobs = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    with tarfile.open(
        fileobj=to, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE_BYTES
    ) as out:  # type: ignore[call-overload]
        out.copybufsize = _PIECE_BYTES
        for name in [*(_BLOBS + name for name in blobs), *tops]:
            out.add(f"{path}/{name}", name, recursive=False)


def receive(path: str, answer: Answer) -> None:
    """Write a layout's archive as a new directory, which has its name once it is complete."""
    if os.path.lexists(path):
        raise Invalid(f"'{path}' exists", hint="name a directory that does not")
    partial = f"{path.rstrip('/')}.{os.getpid()}.part"
    os.makedirs(f"{partial}/{_BLOBS}")
    try:
        with tarfile.open(fileobj=_Parts(answer), mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                _write(partial, member.name, archive.extractfile(member))
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(directory: str, name: str, source: BinaryIO | None) -> None:
    digits = name.removeprefix(_BLOBS)
    known = name in ("index.json", "oci-layout") or (digits != name and digits.isalnum())
    if not known or source is None:
        raise Corrupt(f"the engine sent '{name[:100]}', which is not of a layout")
    with open(f"{directory}/{name}", "xb") as file:
        shutil.copyfileobj(source, file, _PIECE_BYTES)


class _Parts:
    """An answer's body to read from."""

    def __init__(self, answer: Answer) -> None:
        self._parts = iter(answer.parts())
        self._left = b""

    def read(self, size: int) -> bytes:
        while len(self._left) < size:
            part = next(self._parts, b"")
            if not part:
                break
            self._left += part
        data, self._left = self._left[:size], self._left[size:]
        return data
