"""Tar to tree records and back; hostile records and archives."""

from __future__ import annotations

import io
import stat
import struct
import tarfile

import pytest

from proa.engine.tree import END, RECORD, Entry, Reader, from_tar, to_tar
from proa.errors import Corrupt, Invalid, NotFound


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = (
        kind,
        link,
        0o4755,
        1,
        2,
        9,
    )
    return info


def test_there_and_back() -> None:
    archive = tar_of(
        (member("d", tarfile.DIRTYPE), b""),
        (member("d/" + "long" * 60), b"x" * 1000),
        (member("d/s", tarfile.SYMTYPE, "../../etc"), b""),
        (member("d/h", tarfile.LNKTYPE, "d/s"), b""),
        (member("d/p", tarfile.FIFOTYPE), b""),
    )
    records = b"".join(from_tar(archive))
    back = io.BytesIO(b"".join(to_tar(Reader(io.BytesIO(records)))))
    with tarfile.open(fileobj=back) as tar:
        found = tar.getmembers()
        assert [m.name for m in found] == ["d", "d/" + "long" * 60, "d/s", "d/h", "d/p"]
        assert {(m.mode, m.uid, m.gid, m.mtime) for m in found} == {(0o4755, 1, 2, 9)}
        data = tar.extractfile(found[1])
        assert data is not None and data.read() == b"x" * 1000
        assert found[2].linkname == "../../etc" and found[3].islnk()


@pytest.mark.parametrize("name", ["../x", "a/../../x", "..", "/../x"])
def test_names_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(Invalid, match="outside"):
        b"".join(from_tar(tar_of((member(name), b""))))


@pytest.mark.parametrize("data", [b"garbage" * 200, b"\0" * 100, b"\x1f\x8b broken"])
def test_broken_archives_are_invalid(data: bytes) -> None:
    with pytest.raises(Invalid):
        b"".join(from_tar(io.BytesIO(data)))


def test_records_are_bounded_and_complete() -> None:
    long = RECORD.pack(1 << 30, *[0] * 9)
    with pytest.raises(Corrupt, match="too long"):
        Reader(io.BytesIO(long)).entry()
    with pytest.raises(Corrupt, match="early"):
        Reader(io.BytesIO(b"\1\2")).entry()
    lying = Entry("f", "", stat.S_IFREG, 0, 0, 0, 0, 0, 100, 0).encode() + b"short"
    with pytest.raises(Corrupt, match="early"):
        b"".join(to_tar(Reader(io.BytesIO(lying))))


def test_the_end_record_carries_the_error() -> None:
    assert Reader(io.BytesIO(END.encode())).entry() is None
    missing = struct.pack("<IIIIIIIIQQ", 0, 0, 0, 0, 0, 0, 0, 0, 2, 0)
    with pytest.raises(NotFound):
        Reader(io.BytesIO(missing)).entry()
