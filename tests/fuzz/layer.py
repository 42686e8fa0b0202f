"""Fuzz the layer reader: whatever the tar says, nothing beside the layer's directory changes."""

from __future__ import annotations

import io
import tarfile

from proa.image.layer.stream import Bounds, decompressed
from proa.image.layer.unpack import unpack
from tests.fuzz import canary
from tests.fuzz.harness import Target, main

BLOCK = 512
BOUNDS = Bounds(slack_bytes=1 << 22, ratio=20)
WORDS = (
    b"..", b"/", b"./", b".wh.", b".wh..wh..opq", b"../../canary/file", b"\0", b"ustar\0" b"00",
    b"12 path=../x\n", b"30 mtime=99999999999999999999\n", b"GNU.sparse.major=1", b"\xff" * 8,
    b"28 SCHILY.xattr.user.a=bcdef\n", b"25 GNU.sparse.map=0,1,5,1\n", b"18 GNU.sparse.size=9\n",
    b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"S", b"L", b"K", b"x", b"g", b"7", b"00000000010\0",
)  # fmt: skip
_MEMBERS = (
    ("d", tarfile.DIRTYPE, ""), ("d/f", tarfile.REGTYPE, ""), ("d/l", tarfile.SYMTYPE, ".."),
    ("d/h", tarfile.LNKTYPE, "d/f"), ("d/.wh.x", tarfile.REGTYPE, ""),
    ("d/.wh..wh..opq", tarfile.REGTYPE, ""), ("c", tarfile.CHRTYPE, ""),
    ("p", tarfile.FIFOTYPE, ""), ("n" * 150, tarfile.REGTYPE, ""), ("d", tarfile.SYMTYPE, "/"),
)  # fmt: skip


def seeds() -> list[bytes]:
    """A little of everything, in both formats."""
    return [_seed(kind) for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]


def _seed(kind: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, type_, link in _MEMBERS:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mtime = type_, link, 1.5
            member.pax_headers = {"SCHILY.xattr.user.a": "b"}
            data = b"data" if type_ == tarfile.REGTYPE and ".wh." not in name else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def repair(data: bytes) -> bytes:
    """Right checksums wherever a header may be."""
    fixed = bytearray(data)
    for at in range(0, len(fixed) - BLOCK + 1, BLOCK):
        header = fixed[at : at + BLOCK]
        if header[257:262] == b"ustar":
            total = sum(header) - sum(header[148:156]) + 8 * 32
            fixed[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(fixed)


def check(data: bytes) -> object:
    """Unpack beside a canary; it stays as it was."""
    with canary.watched() as (root, trash), decompressed(io.BytesIO(data), BOUNDS) as plain:
        return unpack(plain, root, trash).hides


TARGET = Target("layer", check, seeds(), WORDS, repair)

if __name__ == "__main__":
    main(TARGET)
