"""How memory, cached files, owners of files and named kernels are read."""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from proa.errors import Invalid, NotFound, Unsupported
from proa.host import cgroup_tables, pagecache, pseudo, smaps
from proa.host.cgroup import Kept
from proa.image.machine import formats
from proa.image.sbom import owners
from proa.isolation.vm import architectures, named

SIZE = 1 << 20


def test_areas_are_the_parts_of_the_whole() -> None:
    with mmap.mmap(-1, 16 * SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as held:
        held[:] = b"a" * len(held)
        whole, areas = smaps.rollup(os.getpid()), list(smaps.areas(os.getpid()))
        large = [area for area in areas if area.end - area.start >= len(held)]
        assert any(area.written >= len(held) and not area.inode for area in large)
    assert whole.anonymous >= 16 * SIZE
    assert sum(area.pss for area in areas) == pytest.approx(whole.pss, rel=0.02)
    assert whole.pss == whole.own + whole.file
    assert smaps.rollup(0) == smaps.Pages() and list(smaps.areas(0)) == []


HOSTILE = """
import mmap, os, sys
with open(sys.argv[1], "wb+") as file:
    file.write(b"a" * 65536)
    file.flush()
    held = mmap.mmap(file.fileno(), 0)
    held[:] = b"b" * len(held)
    open("/proc/self/comm", "wb").write(sys.argv[2].encode("latin-1"))
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("name", ["caf\xe9\xff", "\xe2\x80\xa8A: x kB", ") R 1 1 1"])
def test_no_name_upsets_the_reading(tmp_path: Path, name: str) -> None:
    """Of a process, or of a file it maps: neither needs to be text, or may be more than a line."""
    words = [sys.executable, "-c", HOSTILE, str(tmp_path / "x\u20281-2 caf\udce9"), name]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert pseudo.parent(child.pid) == os.getpid()
        assert smaps.page_tables(child.pid) >= 4096
        whole = smaps.rollup(child.pid)
        assert sum(area.pss for area in smaps.areas(child.pid)) == pytest.approx(whole.pss, rel=0.1)


def test_a_file_leaves_the_page_cache_and_two_kinds_of_counting_agree(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE + 1))  # not on the disk yet
    with path.open("rb") as file:
        for expected in (
            pagecache.by_mincore(file.fileno()),
            pagecache.resident(file.fileno()),
        ):
            assert expected == SIZE + mmap.PAGESIZE
        found = pagecache.drop(file.fileno())
        assert found == pagecache.Dropped(SIZE + mmap.PAGESIZE, 0)
        assert pagecache.by_mincore(file.fileno()) == 0
        assert file.read(3) and pagecache.resident(file.fileno()) > 0


def test_what_is_mapped_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as held:
        assert held[: mmap.PAGESIZE] == bytes(mmap.PAGESIZE)
        found = pagecache.drop(file.fileno())
        assert found.before == SIZE and found.after >= mmap.PAGESIZE


def test_what_no_process_maps_is_read_on_v1_and_v2(tmp_path: Path) -> None:
    (tmp_path / "memory.stat").write_text(
        "file 900\nfile_mapped 100\nshmem 300\nkernel_stack 10\nslab 20\n"
        "total_cache 900\ntotal_mapped_file 100\ntotal_shmem 300\n"
    )
    (tmp_path / "memory.kmem.usage_in_bytes").write_text("70\n")
    assert cgroup_tables.kept_v2(tmp_path) == Kept(30, 300, 500)
    assert cgroup_tables.kept_v1({"memory": tmp_path}) == Kept(70, 300, 500)
    assert cgroup_tables.kept_v1({}) == Kept()


APK = b"C:Q1\nP:musl\nV:1\nF:lib\nR:libc.so\nZ:x\nF:\nR:top\n\nP:zlib\nF:usr/lib\nR:libz.so\n"


def test_owners_by_each_kind_of_database(tmp_path: Path) -> None:
    def of(name: str, files: dict[str, bytes]) -> dict[bytes, str]:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(content)
        (tmp_path / name).mkdir(exist_ok=True)
        root = os.open(tmp_path / name, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return owners.of(root, tmp_path)
        finally:
            os.close(root)

    info = "var/lib/dpkg/info"
    found = of("deb", {f"{info}/a:amd64.list": b"/.\n/bin/a\n", f"{info}/a.md5sums": b"x  bin/b\n"})
    assert found[b"bin/a"] == "a" and b"bin/b" not in found
    assert of("less", {"var/lib/dpkg/status.d/b.md5sums": b"0  usr/lib/b\n"})[b"usr/lib/b"] == "b"
    found = of("apk", {"lib/apk/db/installed": APK})
    assert found == {b"lib/libc.so": "musl", b"top": "musl", b"usr/lib/libz.so": "zlib"}
    assert of("none", {"etc/hostname": b"x"}) == {}
    hostile = {f"{info}/\x1b[31m.list": b"/bin/a\n"}
    assert "\x1b" not in of("bad", hostile)[b"bin/a"]


def test_virtual_sizes() -> None:
    qcow2 = bytearray(4096)
    struct.pack_into(">4sI", qcow2, 0, b"QFI\xfb", 3)
    struct.pack_into(">Q", qcow2, 24, 5 << 30)
    assert formats.virtual_bytes(bytes(qcow2), 1) == 5 << 30
    assert formats.virtual_bytes(bytes(4096), 4096) == 4096
    assert formats.virtual_bytes(b"vhdxfile" + bytes(4096), 4104) == 0


def kernel(release: str) -> bytes:
    """The head of a bzImage."""
    head = bytearray(4096)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x20E, 0x600)
    head[0x800 : 0x800 + len(release) + 10] = f"{release} (x@y) #1".encode()[: len(release) + 10]
    return bytes(head)


def test_a_named_kernel_is_known_by_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "vmlinuz-9.9.9"
    path.write_bytes(kernel("6.1.0-x"))
    assert named._release(path) == "6.1.0-x"
    first = named.key(str(path))
    assert named.key(str(path)) == first
    path.write_bytes(kernel("6.2.0-longer") + b"more")
    assert named.key(str(path)) != first
    path.write_bytes(b"\x7fELF" + bytes(5000))
    assert named._release(path) == "9.9.9"
    path.write_bytes(kernel("../../etc"))
    assert named._release(path) == "9.9.9"
    with pytest.raises(NotFound, match="no such file"):
        named.key(str(tmp_path / "nowhere"))
    with pytest.raises(Invalid, match="is no kernel"):
        named.key(str(tmp_path))


def test_a_kernel_that_cannot_be_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "boot" / "vmlinuz-1"
    path.parent.mkdir()
    path.write_bytes(b"nothing")
    key = named.key(str(path))
    with pytest.raises(Unsupported, match="cannot be a vm's kernel: the kernel has no module"):
        named.ready(tmp_path, key, str(path), architectures.ALL["amd64"], lambda line: None)
    assert not named.home(tmp_path, key).exists()
    with pytest.raises(Unsupported, match="not kept any more"):
        named.find(tmp_path, key)
