"""Layers and archives made to get out, to lie, or to fill the machine.

A canary directory lies beside the store; after each attack it is as it was made.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import stat
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proa.errors import Corrupt, ProaError
from proa.host import files
from proa.image.layer import unpack as unpacking
from proa.image.layer.stream import Bounds
from proa.image.layer.unpack import OPAQUE, unpack
from proa.image.store import Images
from tests.conftest import need
from tests.support.images import Layer, archive

HARDLINK, SYMLINK, CHARACTER, FIFO = tarfile.LNKTYPE, tarfile.SYMTYPE, b"3", b"6"


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A directory that must stay exactly as it is, times included."""
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    directory = tmp_path / "canary"
    directory.mkdir(mode=0o751)
    (directory / "file").write_text("unread\n")
    before = facts(directory), facts(directory / "file")
    yield directory
    assert os.listdir(directory) == ["file"]
    assert (facts(directory), facts(directory / "file")) == before
    assert (directory / "file").read_text() == "unread\n"


def facts(path: Path) -> tuple[int, ...]:
    """What an attack could have changed."""
    status = path.lstat()
    return (
        status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size,
        status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where layers are unpacked; the canary is its neighbour."""
    for name in ("root", "trash"):
        (tmp_path / name).mkdir(mode=0o755)
    return tmp_path / "root"


def run(made: Layer, root: Path) -> unpacking.Unpacked:
    return unpack(io.BytesIO(made.bytes()), root, root.parent / "trash")


def paths(root: Path) -> set[str]:
    """Everything in the layer."""
    found = set()
    for here, directories, names in os.walk(root):
        found |= {os.path.relpath(os.path.join(here, name), root) for name in directories + names}
    return found


# -- ways out -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../canary/file", "a/../../canary/file", "/../canary/file", "..", "./../canary/x",
             "a/b/../../../canary/file", "../root/../canary/file"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, SYMLINK, FIFO, CHARACTER])
def test_names_with_dots(root: Path, canary: Path, name: str, kind: bytes) -> None:
    made = Layer()
    made.tar.addfile(raw(name, kind))
    with pytest.raises(Corrupt, match="leads out"):
        run(made, root)


def raw(name: str, kind: bytes = tarfile.REGTYPE, **attributes: Any) -> tarfile.TarInfo:
    """A member whose name is taken as it is."""
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.linkname = kind, 0o666, "/x"
    for key, value in attributes.items():
        setattr(member, key, value)
    return member


def test_absolute_names_stay_inside(root: Path, canary: Path) -> None:
    made = Layer()
    made.tar.addfile(raw(str(canary / "file")))
    run(made, root)
    assert (root / str(canary / "file").lstrip("/")).is_file()


@pytest.mark.parametrize("target", ["{canary}", "../canary", "../../../../../../../..{canary}"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, SYMLINK, HARDLINK, FIFO])
def test_parents_that_are_links(root: Path, canary: Path, target: str, kind: bytes) -> None:
    """CVE-2021-32760, CVE-2025-47290: they lead nowhere but inside."""
    made = Layer()
    made.symlink("link", target.format(canary=canary))
    made.file("source", "x")
    made.tar.addfile(raw("link/file", kind, linkname="source"))
    with suppress(Corrupt):
        run(made, root)
    made = Layer()
    made.directory(str(canary))
    made.symlink("inner", str(canary))
    made.file("inner/new", "x")
    run(made, root)
    assert (root / str(canary).lstrip("/") / "new").read_text() == "x"


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.DIRTYPE, CHARACTER, FIFO])
def test_a_link_is_replaced_not_followed(root: Path, canary: Path, kind: bytes) -> None:
    """CVE-2020-10696: neither content nor mode nor owner goes through it."""
    made = Layer()
    made.symlink("file", str(canary / "file"))
    made.tar.addfile(raw("file", kind, uid=12, gid=13, mode=0o4777, mtime=5))
    run(made, root)
    assert not (root / "file").is_symlink()
    assert (root / "file").lstat().st_uid == 12


@pytest.mark.parametrize(
    "target", ["../canary/file", "/../canary/file", "link/file", "{canary}/file", "", ".", "/",
               "nothing", "new"],
)  # fmt: skip
def test_hard_links_out(root: Path, canary: Path, target: str) -> None:
    made = Layer()
    made.symlink("link", str(canary))
    made.add("new", HARDLINK, 0o777, linkname=target.format(canary=canary))
    with pytest.raises(Corrupt):
        run(made, root)


def test_writing_through_a_hard_link_to_a_link(root: Path, canary: Path) -> None:
    made = Layer()
    made.symlink("link", str(canary / "file"))
    made.add("same", HARDLINK, 0o777, linkname="link")
    made.file("same", "attack")
    run(made, root)
    assert (root / "same").read_text() == "attack"
    assert (root / "link").is_symlink()


def test_a_parent_replaced_in_the_middle(root: Path, canary: Path) -> None:
    made = Layer()
    made.file("a/b/first", "x")
    made.symlink("a", str(canary))
    made.add("keep", tarfile.DIRTYPE, 0o755)
    made.file("a/b/second", "x")
    with pytest.raises(Corrupt):  # the link leads to nothing inside
        run(made, root)
    assert (root / "a").is_symlink()


def test_a_directory_becomes_a_link_and_its_time_is_set(root: Path, canary: Path) -> None:
    made = Layer()
    made.add("d", tarfile.DIRTYPE, 0o755, mtime=1)
    made.symlink("d", str(canary))
    run(made, root)
    assert (root / "d").is_symlink()


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh.", "a/.wh...", "link/.wh.file",
                                  "../canary/.wh.file", "link/.wh..wh..opq"])  # fmt: skip
def test_whiteouts_of_what_is_not_theirs(root: Path, canary: Path, name: str) -> None:
    made = Layer()
    made.symlink("link", str(canary))
    made.tar.addfile(raw(name))
    with pytest.raises(Corrupt):
        run(made, root)


def test_the_root_is_not_replaced(root: Path, canary: Path) -> None:
    for name in (".", "./", "/", "a/.."):
        made = Layer()
        made.tar.addfile(raw(name, SYMLINK, linkname=str(canary)))
        with pytest.raises(Corrupt):
            run(made, root)
    assert root.is_dir()


# -- what overlayfs must not be told ------------------------------------------------------------


def test_attributes_of_overlayfs_are_not_an_images_to_set(root: Path) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    made = Layer()
    member = raw("d", tarfile.DIRTYPE)
    member.pax_headers = {
        f"SCHILY.xattr.{name}": value
        for name, value in {
            "trusted.overlay.redirect": "/etc", "trusted.overlay.opaque": "y",
            "user.overlay.opaque": "y", "trusted.overlay.metacopy": "", "user.kept": "v",
        }.items()
    }  # fmt: skip
    made.tar.addfile(member)
    run(made, root)
    assert os.listxattr(root / "d") == ["user.kept"]


def test_whiteouts_become_overlayfs_marks(root: Path) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    made = Layer()
    made.file(".wh.gone", "")
    made.directory("d")
    made.file("d/.wh..wh..opq", "")
    made.file("d/.wh..wh.plnk", "")
    made.file("both", "here")
    made.file(".wh.both", "")
    made.file("tree/x", "")
    made.file(".wh.tree", "")
    made.file(".wh.again", "")
    made.directory("again")
    assert run(made, root).hides
    gone = (root / "gone").lstat()
    assert stat.S_ISCHR(gone.st_mode) and gone.st_rdev == 0
    for name in ("d", "tree", "again"):
        assert os.getxattr(root / name, OPAQUE.decode()) == b"y"
    assert (root / "both").read_text() == "here"
    assert paths(root) == {"gone", "d", "both", "tree", "tree/x", "again"}


# -- faithful all the same ----------------------------------------------------------------------


def test_everything_a_layer_can_say_is_kept(root: Path) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    made = Layer()
    made.add("sticky", tarfile.DIRTYPE, 0o3777, uid=3, gid=4, mtime=1_000_000_000)
    member = raw("sticky/tool", mode=0o6755, uid=5, gid=6, mtime=999)
    member.pax_headers = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "mtime": "999.123456789",
    }
    made.tar.addfile(member)
    made.add("sticky/same", HARDLINK, 0o644, linkname="./sticky/tool")
    made.add("null", CHARACTER, 0o622, devmajor=1, devminor=3, gid=9)
    made.add("pipe", FIFO, 0o640)
    made.symlink("dangling", "/no/where")
    made.file("sticky/late", "x")
    assert not run(made, root).hides
    tool, sticky = (root / "sticky/tool").stat(), (root / "sticky").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_uid, tool.st_gid) == (0o6755, 5, 6)
    assert (tool.st_mtime_ns, tool.st_nlink) == (999_123456789, 2)
    assert os.getxattr(root / "sticky/tool", "security.capability") == capability
    assert (stat.S_IMODE(sticky.st_mode), sticky.st_uid, sticky.st_gid) == (0o3777, 3, 4)
    assert sticky.st_mtime == 1_000_000_000
    late = (root / "sticky/late").stat()
    assert (late.st_uid, late.st_gid) == (0, 0)
    assert (root / "null").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISFIFO((root / "pipe").stat().st_mode)
    assert os.readlink(root / "dangling") == "/no/where"


def test_later_entries_win(root: Path) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    made = Layer()
    made.file("x", "old")
    made.file("x", "new", 0o600)
    made.file("d/kept", "")
    made.directory("d", 0o700)
    made.file("tree/a/b", "")
    made.file("tree", "now a file")
    made.file("y", "")
    made.directory("y")
    run(made, root)
    assert (root / "x").read_text() == "new"
    assert (root / "d/kept").exists()
    assert (root / "tree").read_text() == "now a file"
    assert (root / "y").is_dir()


# -- extremes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attributes",
    [{"uid": 2**32 - 1}, {"uid": 2**32}, {"gid": 2**40}, {"uid": -1}, {"devmajor": 1 << 20},
     {"devminor": 1 << 20}],
)  # fmt: skip
def test_impossible_numbers(root: Path, canary: Path, attributes: dict[str, int]) -> None:
    """CVE-2024-40635: nothing wraps around to root."""
    made = Layer()
    made.tar = tarfile.open(fileobj=made.buffer, mode="w", format=tarfile.GNU_FORMAT)
    made.tar.addfile(raw("x", CHARACTER, **attributes))
    with pytest.raises(Corrupt):
        run(made, root)


@pytest.mark.parametrize("mtime", [2**62, -(2**62), 2**35])
def test_times_at_the_end_of_the_world(root: Path, canary: Path, mtime: int) -> None:
    made = Layer()
    made.tar = tarfile.open(fileobj=made.buffer, mode="w", format=tarfile.GNU_FORMAT)
    made.tar.addfile(raw("x", mtime=mtime))
    made.tar.addfile(raw("d", tarfile.DIRTYPE, mtime=mtime))
    run(made, root)
    assert (root / "x").exists()


def test_names_too_long_and_too_deep(root: Path, canary: Path) -> None:
    deep = Layer()
    deep.file("d/" * 2000 + "f", "x")
    run(deep, root)
    for name in ("d/" * 3000 + "f", "n" * 256, "n" * 100_000):
        made = Layer()
        made.file(name, "x")
        with pytest.raises(Corrupt):
            run(made, root)
    files.remove_tree(root)  # too deep for pytest's own way of cleaning up


def test_a_huge_sparse_file(root: Path, canary: Path) -> None:
    for size, right in ((1 << 30, True), (1 << 40, False), (1 << 61, False)):
        made = Layer()
        member = raw(f"s{size}", size=1)
        member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(size)}
        made.tar.addfile(member, io.BytesIO(b"x"))
        if right:
            run(made, root)
            assert (root / f"s{size}").stat().st_blocks < 64
        else:
            with pytest.raises(Corrupt):
                run(made, root)


def test_memory_stays_flat(root: Path, canary: Path) -> None:
    made = Layer()
    for number in range(3000):
        made.file(f"d{number % 50}/{number}", "x")
    made.file("large", b"\0" * (20 << 20))
    data = io.BytesIO(made.bytes())
    tracemalloc.start()
    unpack(data, root, root.parent / "trash")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert len(os.listdir("/proc/self/fd")) < 200


# -- archives -----------------------------------------------------------------------------------


@pytest.fixture
def images(tmp_path: Path, canary: Path) -> Iterator[Images]:
    """A store in which every failed load leaves nothing."""
    store = Images(tmp_path / "images")
    yield store
    assert os.listdir(tmp_path / "images/tmp") == []


def refused(images: Images, data: bytes) -> ProaError:
    """Load what must be refused; nothing of it stays."""
    with pytest.raises(ProaError) as error:
        images.load(io.BytesIO(data))
    assert "\n" not in error.value.message
    for name in ("blobs/sha256", "layers", "disks"):
        assert os.listdir(images._layout.root / name) == []
    assert images.list() == []
    return error.value


def small() -> bytes:
    made = Layer()
    made.file("x", "x" * 1000)
    return made.bytes()


def changed(data: bytes, name: str, change: Callable[[Any], Any]) -> bytes:
    """An archive with one of its JSON documents changed."""
    out = Layer()
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        for member in source:
            content = source.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == name:
                content = change(json.loads(content))
                content = content if isinstance(content, bytes) else json.dumps(content).encode()
            out.file(member.name, content)
    return out.bytes()


def test_a_layer_that_is_not_what_was_promised(images: Images) -> None:
    good, bad = small(), small().replace(b"xxxx", b"yyyy")
    data = archive("a", good)
    digest = hashlib.sha256(good).hexdigest()
    error = refused(images, data.replace(good, bad))
    assert (
        error.message.startswith("layer '") and f"'sha256:{digest}' was promised" in error.message
    )


def test_bombs(images: Images) -> None:
    images.bounds = Bounds(slack_bytes=1 << 20, ratio=100)
    made = Layer()
    made.file("zeros", bytes(30 << 20))
    plain = made.bytes()
    bomb = gzip.compress(archive("a", plain))
    began = time.monotonic()
    assert "bomb" in refused(images, bomb).hint
    with pytest.raises(Corrupt):
        images.import_(io.BytesIO(gzip.compress(plain)), "b")
    with pytest.raises(Corrupt):
        images.import_(io.BytesIO(gzip.compress(gzip.compress(plain))[:-9]), "b")
    assert time.monotonic() - began < 5


def test_streams_that_end_early(images: Images) -> None:
    data = archive("a", small())
    packed = gzip.compress(data)
    for cut in (0, 1, 5, len(packed) // 2, len(packed) - 4):
        refused(images, packed[:cut])
    for cut in (1, 511, 1000, 2500):
        refused(images, data[:cut])


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {}, lambda m: [1], lambda m: b"{", lambda m: b"[" * 100_000, lambda m: b"\xff",
        lambda m: [{}], lambda m: [m[0] | {"Config": "../../../etc/passwd"}],
        lambda m: [m[0] | {"Config": 1}], lambda m: [m[0] | {"Layers": ["../x"]}],
        lambda m: [m[0] | {"Layers": "x"}], lambda m: [m[0] | {"Layers": [{}]}],
        lambda m: [m[0] | {"Layers": []}], lambda m: [m[0] | {"RepoTags": "x"}],
        lambda m: [m[0] | {"RepoTags": ["../x"]}], lambda m: [m[0] | {"RepoTags": [1]}],
        lambda m: [m[0] | {"Layers": m[0]["Layers"] * 501}],
    ],
)  # fmt: skip
def test_bad_docker_manifests(images: Images, change: Callable[[Any], Any]) -> None:
    """CVE-2017-14992 and relatives."""
    refused(images, changed(archive("a", small()), "manifest.json", change))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [], lambda c: c | {"config": []}, lambda c: c | {"config": {"Env": "x"}},
        lambda c: c | {"config": {"Env": ["a\0b"]}}, lambda c: c | {"config": {"Cmd": [1]}},
        lambda c: c | {"config": {"Labels": {"a": 1}}}, lambda c: c | {"rootfs": None},
        lambda c: c | {"config": {"User": {}}}, lambda c: c | {"rootfs": {"diff_ids": [1]}},
        lambda c: c | {"rootfs": {"type": "layers", "diff_ids": ["sha256:../../x"]}},
        lambda c: c | {"created": "yesterday"}, lambda c: c | {"created": 5},
        lambda c: c | {"history": {}}, lambda c: b"{" + b" " * (5 << 20) + b"}",
    ],
)  # fmt: skip
def test_bad_configurations(images: Images, change: Callable[[Any], Any]) -> None:
    data = archive("a", small())
    with tarfile.open(fileobj=io.BytesIO(data)) as source:
        name = source.getnames()[0]
    edited = changed(data, name, change)
    refused(images, edited)  # its name promises another digest
    out = Layer()
    with tarfile.open(fileobj=io.BytesIO(edited)) as source:
        for member in source:
            content = source.extractfile(member).read()  # type: ignore[union-attr]
            if member.name == "manifest.json":
                content = content.replace(name.encode(), b"c.json")
            out.file("c.json" if member.name == name else member.name, content)
    assert isinstance(refused(images, out.bytes()), Corrupt)


def layout(index: Any, *blobs: bytes, named: dict[str, bytes] | None = None) -> bytes:
    """An OCI layout of arbitrary documents."""
    out = Layer()
    for blob in blobs:
        out.file(f"blobs/sha256/{hashlib.sha256(blob).hexdigest()}", blob)
    for name, blob in (named or {}).items():
        out.file(name, blob)
    out.file("index.json", index if isinstance(index, bytes) else json.dumps(index))
    return out.bytes()


def described(data: bytes, kind: str = "manifest", **changes: Any) -> dict[str, Any]:
    return {
        "mediaType": f"application/vnd.oci.image.{kind}.v1+json",
        "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data),
    } | changes  # fmt: skip


def test_documents_that_are_two_things(images: Images) -> None:
    """CVE-2021-41190."""
    config = b'{"rootfs":{"type":"layers","diff_ids":[]}}'
    both = json.dumps({
        "schemaVersion": 2, "manifests": [], "layers": [], "config": described(config, "config"),
    }).encode()  # fmt: skip
    for kind in ("manifest", "index"):
        index = {"schemaVersion": 2, "manifests": [described(both, kind)]}
        assert "as well" in refused(images, layout(index, both, config)).message


def test_digests_that_are_paths(images: Images) -> None:
    """CVE-2024-3727."""
    for digest in ("sha256:../../../canary/file", "sha256:" + "A" * 64, "../x", "sha256:", 1, None):
        index = {"schemaVersion": 2, "manifests": [described(b"", digest=digest)]}
        assert "invalid digest" in refused(images, layout(index)).message


def test_blobs_that_are_not_what_they_are_called(images: Images) -> None:
    name = "blobs/sha256/" + "0" * 64
    index: dict[str, Any] = {"schemaVersion": 2, "manifests": []}
    assert "was promised" in refused(images, layout(index, named={name: b"x"})).message
    for size in (0, -1, 2, 1 << 70, "1", None, True):
        index = {"schemaVersion": 2, "manifests": [described(b"x", size=size)]}
        refused(images, layout(index, b"x"))


def test_indexes_without_end(images: Images) -> None:
    document = b'{"schemaVersion":2,"manifests":[]}'
    for _ in range(10):
        inner = json.dumps({"schemaVersion": 2, "manifests": [described(document, "index")]})
        previous, document = document, inner.encode()
    del previous
    many = {"schemaVersion": 2, "manifests": [described(b"%d" % n) for n in range(10_000)]}
    refused(images, layout(document, document))
    refused(images, layout(many))


def test_links_inside_an_archive_lead_nowhere_else(images: Images, canary: Path) -> None:
    for target in (str(canary / "file"), "manifest.json", "../../../../etc/passwd"):
        out = Layer()
        out.symlink("manifest.json", target)
        refused(images, out.bytes())
        out = Layer()
        out.add("index.json", HARDLINK, 0o644, linkname=target)
        refused(images, out.bytes())


def test_a_store_whose_files_were_swapped_for_links(tmp_path: Path, canary: Path) -> None:
    """CVE-2026-33711: nothing is written through what lies where the store writes."""
    root = tmp_path / "images"
    Images(root)
    (root / "tmp/left").symlink_to(canary)
    try:
        Images(root).load(io.BytesIO(archive("a", small())))
    except ProaError as error:
        assert "\n" not in error.message


def test_damaged_archives_are_refused_or_right(images: Images) -> None:
    """A small fuzzer over a whole archive."""
    chance = random.Random(11)
    whole = archive("a", small())
    expected = {hashlib.sha256(small()).hexdigest()}
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            images.load(io.BytesIO(bytes(data)))
        except ProaError as error:
            assert "\n" not in error.message
        assert set(os.listdir(images._layout.layers)) <= expected
