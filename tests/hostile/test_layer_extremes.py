"""Layers at the edges of what tar, pax, sparse maps and compression can say, and beyond.

Each ends in a typed error, or in the right files; in little memory, soon, with no recursion.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proa.errors import Corrupt, ProaError
from proa.host import files
from proa.image.layer.stream import Bounds, decompressed
from proa.image.layer.unpack import Unpacked, unpack
from proa.image.store import Images
from tests.conftest import need
from tests.support.images import Layer, archive

BLOCK = 512
MEMORY = 12 << 20


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """An empty directory to unpack to; whatever happens, its neighbours stay as they were."""
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    for name in ("root", "trash", "canary"):
        (tmp_path / name).mkdir()
    before = (tmp_path / "canary").stat()
    yield tmp_path / "root"
    after = (tmp_path / "canary").stat()
    assert (before.st_ctime_ns, before.st_nlink) == (after.st_ctime_ns, after.st_nlink)
    assert set(os.listdir(tmp_path)) == {"root", "trash", "canary"}


def run(data: bytes, root: Path) -> Unpacked:
    """Unpack in bounded memory."""
    source = io.BytesIO(data)
    tracemalloc.start()
    try:
        return unpack(source, root, root.parent / "trash")
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MEMORY


def header(name: str = "x", kind: bytes = b"0", size: bytes = b"00000000000\0") -> bytes:
    """A header with a size field as it is given, the checksum right."""
    member = tarfile.TarInfo(name)
    member.type = kind
    made = bytearray(member.tobuf(tarfile.GNU_FORMAT)[:BLOCK])
    made[124:136] = size
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


def pax(records: bytes, kind: bytes = b"x") -> bytes:
    """An extended header of these bytes."""
    return header("pax", kind, b"%011o\0" % len(records)) + records + bytes(-len(records) % BLOCK)


def record(key: str, value: bytes) -> bytes:
    """One pax record with its own length in front."""
    body = b" " + key.encode() + b"=" + value + b"\n"
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


END = bytes(2 * BLOCK)


# -- sizes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size",
    [b"77777777777\0", b"\x80" + bytes(3) + b"\x7f" + b"\xff" * 7, b"\xff" * 12, b"-0000000001\0",
     b"\x80" + b"\xff" * 11, b"0x000000010\0", b"1_000000000\0"],
)  # fmt: skip
def test_sizes_that_lie(root: Path, size: bytes) -> None:
    with pytest.raises(Corrupt):
        run(header(size=size) + b"data".ljust(BLOCK, b"\0") + END, root)


def test_a_size_too_small_leaves_no_room_for_a_second_reading(root: Path) -> None:
    """What one reader takes for content another could take for a header."""
    inner = header("inner", size=b"00000000004\0") + b"evil".ljust(BLOCK, b"\0")
    outer = header("outer", size=b"%011o\0" % len(inner)) + inner
    run(outer + END, root)
    assert os.listdir(root) == ["outer"]
    two = pax(record("size", b"%d" % len(inner))) + header("pax-says", size=b"00000000000\0")
    run(two + inner + END, root)
    assert set(os.listdir(root)) == {"outer", "pax-says"}


# -- pax ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "records",
    [b"30 path=x\n", b"0 a=b\n", b"4 a=\n", b"-9 path=x\n", b"99999999999 path=x\n", b"9 path x\n",
     b"path=x\n", b"9 path=x", b" 9 path=x\n", b"+9 path=x\n", record("size", b"-1"),
     record("size", b"9" * 30), record("uid", b"-1"), record("uid", b"4294967295"),
     record("gid", b"1e3"), record("path", b"a\0b"), record("path", b"../x"),
     record("path", b"a" * 5000), record("linkpath", b"\0"), record("mtime", b"1.2.3"),
     record("mtime", b"nan"), record("mtime", b"9" * 40)],
)  # fmt: skip
def test_records_that_are_wrong(root: Path, records: bytes) -> None:
    with pytest.raises(Corrupt):
        run(pax(records) + header() + END, root)


def test_headers_larger_than_anybody_needs(root: Path) -> None:
    for kind in (b"x", b"g", b"L", b"K"):
        with pytest.raises(Corrupt, match="too large"):
            run(header("big", kind, b"%011o\0" % (2 << 20)) + bytes(2 << 20), root)
    many = b"".join(record(f"k{n}", b"v") for n in range(60_000))
    run(pax(many) + header("after-many") + END, root)
    assert os.listdir(root) == ["after-many"]


def test_headers_that_never_come_to_their_file(root: Path) -> None:
    run(pax(record("path", b"y")) * 20_000 + END, root)
    growing = b"".join(pax(record(f"k{n}", b"v" * 10_000), b"g") for n in range(200))
    with pytest.raises(Corrupt, match="too large"):
        run(growing + header() + END, root)
    assert os.listdir(root) == []


# -- sparse -------------------------------------------------------------------------------------


def sparse(version: str, size: int, numbers: list[int], stored: int) -> bytes:
    """A sparse file in one of GNU's pax versions."""
    data = b"d" * stored
    records = record("GNU.sparse.size", b"%d" % size) + record("GNU.sparse.realsize", b"%d" % size)
    if version == "0.0":
        keys = ("GNU.sparse.offset", "GNU.sparse.numbytes")
        for at, number in enumerate(numbers):
            records += record(keys[at % 2], b"%d" % number)
    elif version == "0.1":
        records += record("GNU.sparse.map", b",".join(b"%d" % number for number in numbers))
    else:
        records += record("GNU.sparse.major", b"1") + record("GNU.sparse.minor", b"0")
        listed = b"".join(b"%d\n" % number for number in [len(numbers) // 2, *numbers])
        data = listed + bytes(-len(listed) % BLOCK) + data
    made = pax(records) + header("s", size=b"%011o\0" % len(data))
    return made + data + bytes(-len(data) % BLOCK) + END


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
@pytest.mark.parametrize(
    ("size", "numbers", "stored"),
    [(10, [0, 5, 3, 5], 10), (10, [5, 5, 0, 5], 10), (4, [0, 5], 5), (10, [0, 5], 9),
     (10, [0, 1 << 62], 5), (1 << 62, [0, 5], 5)],
)  # fmt: skip
def test_maps_that_do_not_fit(
    root: Path, version: str, size: int, numbers: list[int], stored: int
) -> None:
    with pytest.raises(Corrupt):
        run(sparse(version, size, numbers, stored), root)


@pytest.mark.parametrize("version", ["0.0", "0.1", "1.0"])
def test_a_map_that_fits(root: Path, version: str) -> None:
    run(sparse(version, 1 << 20, [5, 3, 1000, 2], 5), root)
    content = (root / "s").read_bytes()
    assert len(content) == 1 << 20
    assert (content[5:8], content[1000:1002], content.count(b"d")) == (b"ddd", b"dd", 5)


def test_a_map_of_more_pieces_than_there_are(root: Path) -> None:
    many = [number for at in range(300_000) for number in (at * 2, 0)]
    for version in ("0.1", "1.0"):
        with pytest.raises(Corrupt):
            unpack(io.BytesIO(sparse(version, 1 << 20, many, 0)), root, root.parent / "trash")
    old = bytearray(header("old", b"S", b"00000000000\0"))
    old[482] = 1
    old[148:156] = b" " * 8
    old[148:156] = b"%06o\0 " % sum(old)
    block = bytearray(BLOCK)
    block[:504] = (b"00000000001\0" * 2) * 21
    block[504] = 1
    with pytest.raises(Corrupt):
        unpack(io.BytesIO(bytes(old) + bytes(block) * 15_000), root, root.parent / "trash")


# -- attributes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [("", b"x"), ("nothing", b"x"), ("user.", b"x"), ("user." + "n" * 300, b"x"),
     ("user.big", b"v" * 70_000), ("user.a\0b", b"x"), ("security.evm", b"x"),
     ("system.posix_acl_access", b"garbage"), ("trusted.overlay.whiteout", b"y"),
     ("user.overlay.whiteout", b"y"), ("trusted.overlay.metacopy", b"")],
)  # fmt: skip
def test_attributes_are_kept_dropped_or_refused(root: Path, name: str, value: bytes) -> None:
    with pytest.raises(ProaError) if "\0" in name else _either():
        run(pax(record(f"SCHILY.xattr.{name}", value)) + header("f") + END, root)
    if (root / "f").exists():
        assert not [key for key in os.listxattr(root / "f") if ".overlay." in key]


class _either:
    """Whatever comes is a typed error or nothing."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, ProaError)


def test_setuid_does_not_outlive_what_replaced_it(root: Path) -> None:
    made = Layer()
    made.file("tool", "x", 0o6755)
    made.add("same", b"1", 0, linkname="tool")
    made.file("tool", "y", 0o600)
    run(made.bytes(), root)
    assert stat.S_IMODE((root / "tool").stat().st_mode) == 0o600
    assert (root / "same").read_text() == "x"
    assert (root / "same").stat().st_nlink == 1 + len(os.listdir(root.parent / "trash"))


def test_one_name_ten_thousand_times(root: Path) -> None:
    made = Layer()
    for number in range(10_000):
        made.add("x", (b"0", b"5", b"2", b"6")[number % 4], 0o644, linkname="y")
    made.file("x", "last")
    run(made.bytes(), root)
    assert os.listdir(root) == ["x"] and (root / "x").read_text() == "last"


def test_device_nodes_are_out_of_reach(tmp_path: Path) -> None:
    """The disk of the host in a layer: nobody but root gets where it lies."""
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    made = Layer()
    made.add("disk", b"4", 0o666, devmajor=8, devminor=0)
    images = Images(tmp_path / "images")
    image = images.load(io.BytesIO(archive("a", made.bytes())))[0].image
    (layer,) = images.layers(image)
    assert stat.S_ISBLK((layer / "disk").lstat().st_mode)
    assert stat.S_IMODE(layer.parent.stat().st_mode) == 0o700
    images.settle()


# -- compression --------------------------------------------------------------------------------


def test_members_without_end_are_no_recursion(root: Path) -> None:
    """As eStargz and `pigz --independent` write them, only more of them."""
    made = Layer()
    made.file("x", "x" * 3000)
    plain = made.bytes()
    small = b"".join(gzip.compress(plain[at : at + 2]) for at in range(0, len(plain), 2))
    with decompressed(io.BytesIO(small)) as unfolded:
        unpack(unfolded, root, root.parent / "trash")
    assert (root / "x").stat().st_size == 3000
    with decompressed(io.BytesIO(gzip.compress(b"") * 20_000)) as unfolded:
        assert unfolded.read(10) == b""
    padded = gzip.compress(plain) + bytes(100_000) + gzip.compress(b"") + bytes(10)
    with decompressed(io.BytesIO(padded)) as unfolded:
        assert b"".join(iter(lambda: unfolded.read(5000), b"")) == plain


def test_bombs_in_bombs_and_members(tmp_path: Path) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    images = Images(tmp_path / "images")
    images.bounds = Bounds(slack_bytes=1 << 20, ratio=50)
    zeros = gzip.compress(bytes(8 << 20))
    for bomb in (zeros * 8, gzip.compress(zeros * 8), gzip.compress(b"x") * 10 + zeros * 4):
        with pytest.raises(Corrupt):
            images.load(io.BytesIO(bomb))
        with pytest.raises(Corrupt):
            images.import_(io.BytesIO(bomb), "bomb")
    assert list((tmp_path / "images/tmp").iterdir()) == []
    assert list((tmp_path / "images/blobs/sha256").iterdir()) == []


# -- anything -----------------------------------------------------------------------------------

NAMES = st.sampled_from(
    ["a", "a/b", "a/b/c", "./a", "/a", "b", "b/../a", "a/.wh.b", ".wh.a", "a/.wh..wh..opq", "b/"]
)  # fmt: skip
KINDS = st.sampled_from([b"0", b"1", b"2", b"3", b"5", b"6"])
TARGETS = st.sampled_from(["a", "b", "../canary", "/", "..", "a/b", ""])


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(NAMES, KINDS, TARGETS), max_size=12))
def test_any_order_of_anything(root: Path, entries: list[tuple[str, bytes, str]]) -> None:
    """It is refused, or what came last is there, and nothing is elsewhere."""
    made = Layer()
    for name, kind, target in entries:
        made.add(name, kind, 0o755, linkname=target)
    top = root / "one"
    trash = root / "trash"
    for directory in (top, trash):
        directory.mkdir()
    try:
        unpack(io.BytesIO(made.bytes()), top, trash)
        _check_last(top, entries)
    except Corrupt:
        pass
    finally:
        for directory in (top, trash):
            files.remove_tree(directory)


def _check_last(top: Path, entries: list[tuple[str, bytes, str]]) -> None:
    plain = [(name.strip("./"), kind) for name, kind, _ in entries if ".wh." not in name]
    if not plain or "/" in plain[-1][0] or any(".wh." in entry[0] for entry in entries):
        return
    name, kind = plain[-1]
    checks: dict[bytes, Callable[[int], bool]] = {
        b"0": stat.S_ISREG, b"2": stat.S_ISLNK, b"3": stat.S_ISCHR, b"5": stat.S_ISDIR,
        b"6": stat.S_ISFIFO,
    }  # fmt: skip
    if kind in checks:
        assert checks[kind]((top / name).lstat().st_mode)
