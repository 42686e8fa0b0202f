"""The tar reader, against archives other writers made."""

from __future__ import annotations

import io
import random
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path

import pytest

from proa.errors import Corrupt
from proa.image.layer import tar

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def members(data: bytes) -> dict[bytes, tuple[tar.Entry, bytes]]:
    """Every entry with its stored data."""
    reader = tar.Reader(io.BytesIO(data))
    return {entry.name: (entry, b"".join(reader.chunks())) for entry in reader}


def make(format: str, *added: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[format]) as out:
        for member in added:
            out.addfile(member, io.BytesIO(b"x" * member.size))
    return buffer.getvalue()


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    return made


@pytest.mark.parametrize("format", FORMATS)
def test_what_tarfile_writes_is_read(format: str) -> None:
    deep = "d" * 90 + "/" + "f" * 90
    first = member(deep, 1000)
    first.mode, first.uid, first.gid, first.mtime = 0o4751, 1000, 70000, 1_600_000_000
    device = member("dev", kind=tarfile.CHRTYPE)
    device.devmajor, device.devminor = 10, 200
    link = member("link", kind=tarfile.SYMTYPE)
    link.linkname = "../" + "t" * 80
    found = members(make(format, first, device, link))
    entry, data = found[deep.encode()]
    assert (entry.mode, entry.uid, entry.gid, entry.size) == (0o4751, 1000, 70000, 1000)
    assert entry.mtime_ns == 1_600_000_000 * 10**9
    assert data == b"x" * 1000
    assert (found[b"dev"][0].major, found[b"dev"][0].minor) == (10, 200)
    assert found[b"link"][0].link == b"../" + b"t" * 80


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_long_names_and_large_numbers(format: str) -> None:
    name = "/".join(["long"] * 200)
    entry, _ = members(make(format, large := member(name)))[name.encode()]
    assert entry.size == 0
    large.uid, large.mtime = 1 << 31, 1 << 34
    entry, _ = members(make(format, large))[name.encode()]
    assert (entry.uid, entry.mtime_ns) == (1 << 31, (1 << 34) * 10**9)


def test_pax_times_and_attributes() -> None:
    made = member("a")
    made.pax_headers = {"mtime": "-1.25", "SCHILY.xattr.user.x": "value\n=1", "comment": "ä"}
    entry, _ = members(make("pax", made))[b"a"]
    assert entry.mtime_ns == -1_250_000_000
    assert entry.xattrs == {b"user.x": b"value\n=1"}


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], ["--format=pax", "--sparse-version=0.0"],
     ["--format=pax", "--sparse-version=0.1"], ["--format=pax", "--sparse-version=1.0"]],
    ids=lambda options: options[-1].strip("-"),
)  # fmt: skip
def test_sparse_files_of_gnu_tar(tmp_path: Path, options: list[str]) -> None:
    """All four encodings, with enough pieces to need extension headers."""
    with (tmp_path / "holes").open("wb") as file:
        for number in range(60):
            file.seek(number * 65536)
            file.write(b"%d" % number * 4096)
        file.truncate(5 << 20)
    command = ["tar", "-C", str(tmp_path), "--hole-detection=seek", "-S", *options, "-cf-", "holes"]
    data = subprocess.run(command, check=True, capture_output=True).stdout
    if len(data) > 5 << 20:
        pytest.skip("this file system keeps no holes")
    entry, stored = members(data)[b"holes"]
    assert entry.size == 5 << 20
    assert entry.segments is not None
    content = bytearray(entry.size)
    at = 0
    for offset, length in entry.segments:
        content[offset : offset + length] = stored[at : at + length]
        at += length
    assert bytes(content) == (tmp_path / "holes").read_bytes()


def test_truncation_is_noticed_everywhere() -> None:
    data = make("pax", member("a" * 200, 700), member("b", 300))
    end = data.rstrip(b"\0").__len__()
    whole = len(members(data))
    for cut in range(1, end, 7):
        try:
            assert len(members(data[:cut])) < whole or cut > end - 300
        except Corrupt as error:
            assert "\n" not in error.message


def test_lying_sizes_are_refused() -> None:
    base = bytearray(make("gnu", member("a", 10)))
    for field in (b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b"zzzzzzzzzzz\0"):
        header = bytearray(base[:512])
        header[124:136] = field
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        with pytest.raises(Corrupt):
            members(bytes(header) + bytes(base[512:]))


def test_huge_headers_are_refused_before_they_are_read() -> None:
    header = bytearray(member("x").tobuf())
    header[156:157] = b"x"
    header[124:136] = b"77777777777\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    with pytest.raises(Corrupt, match="too large"):
        members(bytes(header) + bytes(4096))


@pytest.mark.parametrize(
    "records",
    [b"5 a=\n6 b", b"99999999999 a=b\n", b"-5 a=b\n", b"0 a=b\n", b"a" * 400, b"1" * 400,
     b"11 path=a\0b\n", b"12 uid=xyz12\n", b"9 uid=-1\n", b"12 size=1e10\n",
     b"22 GNU.sparse.major=1\n", b"24 GNU.sparse.map=1,2,3\n", b"26 GNU.sparse.size=0000000\n"],
)  # fmt: skip
def test_malformed_pax_headers(records: bytes) -> None:
    header = bytearray(member("x").tobuf())
    header[156:157] = b"x"
    header[124:136] = b"%011o\0" % len(records)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + records.ljust(512, b"\0") + make("ustar", member("y", 3))
    try:
        members(data)
    except Corrupt as error:
        assert "\n" not in error.message


def test_damage_is_corrupt_and_nothing_else() -> None:
    """A small fuzzer: flipped bytes, with the checksums put right so that they matter."""
    chance = random.Random(3)
    made = member("f" * 150, 600)
    made.pax_headers = {"mtime": "1.5", "SCHILY.xattr.user.a": "b"}
    whole = make("pax", made, member("l", kind=tarfile.LNKTYPE), member("c", kind=tarfile.CHRTYPE))
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data) - 1024)] = chance.choice(b"\0\xff\x80019x gS=\n")
        for start in range(0, len(data) - 512, 512):
            if data[start + 257 : start + 262] == b"ustar":
                data[start + 148 : start + 156] = b" " * 8
                total = sum(data[start : start + 512])
                data[start + 148 : start + 156] = b"%06o\0 " % total
        with suppress(Corrupt):
            members(bytes(data))
