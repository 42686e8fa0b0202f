"""Layers written as tars: read back by our reader, GNU tar, bsdtar and Python, and by overlayfs."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proa.errors import Corrupt, Unsupported
from proa.host import mounts
from proa.image.layer import differences, pack, stubs, tar, unpack, writer
from proa.image.layer.merged import Merged
from proa.image.layer.tar import Entry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners and devices need root")

SECOND = 10**9
OPAQUE = "trusted.overlay.opaque"


def packed(root: Path, **options: Any) -> bytes:
    sink = io.BytesIO()
    pack.pack(root, sink, **options)
    return sink.getvalue()


def unpacked(data: bytes, directory: Path) -> Path:
    root, trash = directory / "root", directory / "trash"
    for path in (directory, root, trash):
        path.mkdir(parents=True)
    unpack.unpack(io.BytesIO(data), root, trash)
    return root


def names(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


@contextmanager
def overlay(layers: list[Path]) -> Iterator[Path]:
    """The layers, topmost first, as the kernel merges them."""
    lowers = [mounts.open_tree(layer) for layer in layers]
    fd = mounts.overlay(lowers)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        for each in (*lowers, fd):
            os.close(each)


# -- trees made up --------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "ü", "x y", "l" * 120, "new\nline", "-", "k\udc80"])
LEAF = st.one_of(
    st.tuples(st.just("file"), st.binary(max_size=1500), st.sampled_from([0o644, 0o4755, 0o600])),
    st.tuples(st.just("link"), st.sampled_from(["a", "/etc", "../" * 50 + "t" * 90])),
    st.tuples(st.sampled_from(["fifo", "device", "whiteout", "again"])),
)
TREES = st.recursive(
    LEAF, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
).filter(lambda tree: isinstance(tree, dict))


def grow(tree: Any, path: Path, files: list[Path], number: int = 1) -> None:
    """Make what a strategy made up."""
    mode = 0o700 + number % 8
    if isinstance(tree, dict):
        path.mkdir(exist_ok=True)
        if number % 3 == 0:
            os.setxattr(path, OPAQUE, b"y")
        for count, (name, inner) in enumerate(tree.items()):
            grow(inner, path / name, files, 2 * number + count)
    elif tree[0] == "file":
        path.write_bytes(tree[1])
        mode = tree[2]
        if len(tree[1]) % 2:
            os.setxattr(path, "user.x", tree[1][:100])
        files.append(path)
    elif tree[0] == "link":
        path.symlink_to(tree[1])
    elif tree[0] == "again" and files:
        os.link(files[0], path)
        return
    else:
        kinds = {"fifo": (stat.S_IFIFO, 0), "device": (stat.S_IFBLK, 259)}
        kind, device = kinds.get(tree[0], (stat.S_IFCHR, 0))
        os.mknod(path, kind, device)
    os.chown(path, number, 3_000_000 + number, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(mode)  # after the owner, which takes set-id bits away
    moment = (1_000_000_000 + number) * SECOND
    os.utime(path, ns=(moment, moment), follow_symlinks=False)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tree=TREES)
def test_a_round_trip_gives_the_same_bytes(
    tree: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("trip")
    root = base / "made"
    grow(tree, root, [])
    first = packed(root)
    again = unpacked(first, base / "again")
    assert packed(again) == first
    assert packed(root) == first
    listed = subprocess.run(
        ["tar", "--list", "--null", "-f", "-"], input=first, capture_output=True, check=True
    )
    assert listed.stderr == b""
    shutil.rmtree(base)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(upper=TREES, lower=TREES, bottom=TREES)
def test_merging_is_what_overlayfs_does(
    upper: Any, lower: Any, bottom: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("merge")
    layers = [base / "upper", base / "lower", base / "bottom"]
    for tree, root in zip((upper, lower, bottom), layers, strict=True):
        grow(tree, root, [])
    sink = io.BytesIO()
    pack.pack_merged(layers, sink)
    ours = described(sink.getvalue())
    with overlay(layers) as seen:
        kernels = dict(walked(seen))
    assert ours == kernels
    with overlay(layers[1:]) as seen:
        before = dict(walked(seen))
    told = {path: kind for kind, path in differences.changes(layers[0], layers[1:])}
    added = {f"/{path}".encode("utf-8", "surrogateescape") for path in kernels.keys() - before}
    assert {path for path, kind in told.items() if kind == "A"} == added - {b"/."}
    gone = {f"/{path}".encode("utf-8", "surrogateescape") for path in before.keys() - kernels}
    deleted = {path for path, kind in told.items() if kind == "D"}
    assert deleted <= gone
    shutil.rmtree(base)


def described(data: bytes) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    reader = tar.Reader(io.BytesIO(data))
    kinds: dict[bytes, tuple[Any, ...]] = {}
    for entry in reader:
        content = hashlib.sha256(b"".join(reader.chunks())).hexdigest()
        facts: tuple[Any, ...] = (entry.kind, entry.mode, entry.uid, entry.gid, content)
        if entry.kind == tar.HARDLINK:
            facts = kinds[entry.link]
        elif entry.kind == tar.SYMLINK:
            facts = (entry.kind, os.fsdecode(entry.link), entry.uid, entry.gid)
        elif entry.kind != tar.FILE:
            facts = (*facts[:4], entry.major, entry.minor)
        kinds[entry.name] = facts
        found[os.fsdecode(entry.name).rstrip("/") or "."] = facts
    return found


def walked(root: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    kinds = {
        stat.S_IFREG: tar.FILE, stat.S_IFDIR: tar.DIRECTORY, stat.S_IFLNK: tar.SYMLINK,
        stat.S_IFIFO: tar.FIFO, stat.S_IFBLK: tar.BLOCKDEV,
    }  # fmt: skip
    top = f"{root}/"
    for directory, below, files in os.walk(top):
        for name in (".", *below, *files) if directory == top else (*below, *files):
            path = os.path.join(directory, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue  # overlayfs lists whiteouts where there is nothing to merge with
            kind = kinds[stat.S_IFMT(status.st_mode)]
            owner = (status.st_uid, status.st_gid)
            facts: tuple[Any, ...] = (kind, stat.S_IMODE(status.st_mode), *owner)
            if kind == tar.SYMLINK:
                facts = (kind, os.readlink(path), *owner)
            elif kind == tar.FILE:
                facts = (*facts, hashlib.sha256(Path(path).read_bytes()).hexdigest())
            else:
                facts = (*facts, os.major(status.st_rdev), os.minor(status.st_rdev))
            yield os.path.relpath(path, top), facts


# -- one by one -----------------------------------------------------------------------------------


def test_order_of_making_does_not_matter(tmp_path: Path) -> None:
    for root, order in (("one", "abc"), ("two", "cba")):
        (tmp_path / root).mkdir()
        for name in order:
            (tmp_path / root / name).write_text(name)
            os.utime(tmp_path / root / name, ns=(0, 7 * SECOND))
        os.utime(tmp_path / root, ns=(1, 9 * SECOND + 5))
    assert packed(tmp_path / "one") == packed(tmp_path / "two")


def test_whiteouts_and_opaque_directories(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    os.setxattr(tmp_path / "d", OPAQUE, b"y")
    (tmp_path / "d" / "f").touch()
    for name in ("gone", "d/lost"):
        os.mknod(tmp_path / name, stat.S_IFCHR, 0)
    os.link(tmp_path / "gone", tmp_path / "gone2")  # overlayfs shares one inode among whiteouts
    expected = [".", ".wh.gone", ".wh.gone2", "d", "d/.wh..wh..opq", "d/.wh.lost", "d/f"]
    assert names(packed(tmp_path)) == expected


def test_notes_of_overlayfs_are_not_written(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.touch()
    for note in ("trusted.overlay.origin", "trusted.overlay.nlink", "user.overlay.impure"):
        os.setxattr(file, note, b"y")
    os.setxattr(file, "user.kept", b"\0\nyes")
    entries = list(tar.Reader(io.BytesIO(packed(tmp_path))))
    assert entries[1].xattrs == {b"user.kept": b"\0\nyes"}
    os.setxattr(file, "trusted.overlay.metacopy", b"")
    with pytest.raises(Corrupt, match="redirected"):
        packed(tmp_path)


def test_a_file_capability_of_the_first_user_namespace_is_written_plainly(tmp_path: Path) -> None:
    namespaced = struct.pack("<IIIIII", 0x03000001, 0x2000, 0, 0, 0, 0)
    plain = struct.pack("<IIIII", 0x02000001, 0x2000, 0, 0, 0)
    assert pack.plain_capability(namespaced) == plain
    assert pack.plain_capability(plain) == plain
    other = namespaced[:-4] + b"\1\0\0\0"
    assert pack.plain_capability(other) == other
    (tmp_path / "f").touch()
    os.setxattr(tmp_path / "f", "security.capability", plain)
    entries = list(tar.Reader(io.BytesIO(packed(tmp_path))))
    assert entries[1].xattrs == {b"security.capability": plain}


def test_times_are_whole_seconds_and_not_after_the_epoch(tmp_path: Path) -> None:
    for name, moment in (("old", 5 * SECOND + 999), ("new", 50 * SECOND), ("ancient", -3 * SECOND)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(0, moment))
    entries = tar.Reader(io.BytesIO(packed(tmp_path, epoch_seconds=10)))
    found = {entry.name: entry.mtime_ns // SECOND for entry in entries}
    assert found == {b"./": 10, b"old": 5, b"new": 10, b"ancient": -3}


def test_what_a_layer_cannot_have(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    assert names(packed(tmp_path)) == ["."]
    (tmp_path / ".wh.x").touch()
    with pytest.raises(Unsupported, match=r"name '/\.wh\.x'"):
        packed(tmp_path)
    (tmp_path / ".wh.x").rename(tmp_path / "x")
    os.setxattr(tmp_path / "x", "user.a=b", b"")
    with pytest.raises(Unsupported, match=r"extended attribute 'user\.a=b'"):
        packed(tmp_path)


def test_numbers_and_names_larger_than_ustar_takes() -> None:
    entry = Entry(b"d/" * 150 + b"n" * 200, tar.FILE, 0o644, 1 << 31, 3 << 30, 9 << 30, -5 * SECOND)
    head = writer.header(entry)
    assert len(head) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(head), mode="r|") as archive:
        member = archive.next()
    assert member is not None
    assert (member.name.encode(), member.size, member.mtime) == (entry.name, entry.size, -5)
    assert (member.uid, member.gid) == (entry.uid, entry.gid)
    split = writer.header(Entry(b"d" * 99 + b"/" + b"n" * 90, tar.FILE, 0o644, 0, 0, 0, 0))
    assert len(split) == 512  # no pax header: the prefix takes it


@pytest.mark.parametrize("program", ["tar", "bsdtar"])
def test_other_tars_list_the_same(tmp_path: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"'{program}' is not installed")
    deep = tmp_path / ("d" * 90) / ("e" * 90) / ("f" * 120)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"x" * 1000)
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 3_000_000)
    os.chown(tmp_path / "big", 5_000_000, 6)
    os.link(tmp_path / "big", tmp_path / "big2")
    listed = subprocess.run(
        [program, "-t", "-f", "-"], input=packed(tmp_path), capture_output=True, check=True
    )
    found = [line.rstrip("/").removeprefix("./") for line in listed.stdout.decode().splitlines()]
    expected = [
        str(Path(directory, name).relative_to(tmp_path))
        for directory, below, files in os.walk(tmp_path)
        for name in (*below, *files)
    ]
    assert sorted(found) == sorted([".", *expected])


def test_memory_does_not_grow_with_files(tmp_path: Path) -> None:
    (tmp_path / "big").touch()
    os.truncate(tmp_path / "big", 48 << 20)

    class Nowhere:
        size = 0

        def write(self, data: bytes | memoryview, /) -> None:
            self.size += len(data)

    sink = Nowhere()
    tracemalloc.start()
    pack.pack(tmp_path, sink)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sink.size > 48 << 20 and peak < 8 << 20


# -- mount points that were made -----------------------------------------------------------------


def test_stubs_are_found_before_and_removed_after(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for path in ("etc", "real/deep"):
        (lower / path).mkdir(parents=True)
    (lower / "link").symlink_to("/real/../real/deep")
    (lower / "dangling").symlink_to("nowhere/at/all")
    targets = ("/proc", "/etc/hosts", "/link/x/y", "/dangling", "/real/deep")
    made = stubs.missing([lower], targets)
    assert made == (
        b"proc", b"etc/hosts", b"real/deep/x", b"real/deep/x/y",
        b"nowhere", b"nowhere/at", b"nowhere/at/all",
    )  # fmt: skip
    for path in ("proc", "etc", "real/deep/x/y", "nowhere/at/all"):
        (upper / path).mkdir(parents=True)
    (upper / "etc/hosts").touch()
    (upper / "nowhere/kept").write_text("theirs")
    stubs.remove(upper, stubs.left(upper, [lower], made))
    assert sorted(str(p.relative_to(upper)) for p in upper.rglob("*")) == [
        "nowhere",
        "nowhere/kept",
    ]


def test_a_stub_behind_a_new_link_is_nobodys(tmp_path: Path) -> None:
    """CVE-2024-23652: the parent of a mount point became a link to something else."""
    lower, upper, canary = tmp_path / "lower", tmp_path / "upper", tmp_path / "canary"
    for path in (lower, upper, canary / "x", upper / "inside/x"):
        path.mkdir(parents=True)
    made = stubs.missing([lower], ("/a/x", "/b/x"))
    (upper / "a").symlink_to(canary)
    (upper / "b").symlink_to("inside")
    stubs.remove(upper, stubs.left(upper, [lower], made))
    assert (canary / "x").is_dir() and (upper / "inside/x").is_dir()
    assert (upper / "a").is_symlink() and (upper / "b").is_symlink()


def test_links_that_never_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with Merged([tmp_path]) as files, pytest.raises(Exception, match="too many links in '/a/x'"):
        files.resolve(b"/a/x")
