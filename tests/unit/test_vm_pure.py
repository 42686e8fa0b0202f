"""The pure parts of virtual machines: command line, cpio, module order, plans, accounts."""

from __future__ import annotations

import gzip
import itertools
import json
import lzma
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from proa import plan
from proa.errors import Corrupt, Invalid, IsolationError, Unsupported
from proa.isolation.vm import blocks, guest, initramfs, inside, modules, plans, qemu, settings
from proa.isolation.vm.layers import Opened
from proa.resources import Link, Share
from proa.spec import Limits

MIB = 1 << 20
FILES = qemu.Files(100, 101, 102, Opened.single(103), 104, 105)
MACHINE = qemu.Machine(512 * MIB)
LINK = Link("eth0", "pv0", "br0", "52:54:00:00:00:09", "10.0.0.2/24", "10.0.0.1")


# -- the counter a guest keeps its time by -----------------------------------------------------


@pytest.mark.parametrize(("cpuinfo", "khz"), [
    ("cpu MHz\t\t: 2596.120\nflags\t\t: tsc constant_tsc\ncpu MHz\t\t: 2596.120\n", 2596120),
    ("cpu MHz\t\t: 2596.120\nflags\t\t: tsc constant_tsc\ncpu MHz\t\t: 1800.000\n", 0),
    ("cpu MHz\t\t: 2596.120\nflags\t\t: tsc constant_tsc aperfmperf\n", 0),
    ("cpu MHz\t\t: 2596.120\nflags\t\t: tsc\n", 0),
    ("processor\t: 0\n", 0),
])  # fmt: skip
def test_a_rate_is_the_counters_only_when_nothing_changes_it(cpuinfo: str, khz: int) -> None:
    assert guest.constant_khz(cpuinfo) == khz


# -- qemu's arguments ---------------------------------------------------------------------------


def devices(argv: tuple[str, ...]) -> list[str]:
    """The devices, in their order."""
    return [value for option, value in itertools.pairwise(argv) if option == "-device"]


def test_a_clone_has_the_devices_of_its_template_in_the_same_order() -> None:
    booted = qemu.arguments(MACHINE, FILES, qemu.Boot("kernel", "initrd"))
    cloned = qemu.arguments(MACHINE, FILES, qemu.Clone())
    assert devices(booted) == devices(cloned)
    assert "-kernel" in booted and "-kernel" not in cloned
    assert cloned[-2:] == ("-incoming", "defer")


def test_only_a_template_shares_its_memory() -> None:
    booted = " ".join(qemu.arguments(MACHINE, FILES, qemu.Boot("kernel", "initrd")))
    cloned = " ".join(qemu.arguments(MACHINE, FILES, qemu.Clone()))
    assert "mem-path=/proc/self/fd/105,share=on" in booted
    assert "mem-path=/proc/self/fd/105,share=off" in cloned


def test_a_machine_without_network_has_no_interface() -> None:
    argv = qemu.arguments(replace(MACHINE, network=False), FILES, qemu.Clone())
    assert not any("virtio-net" in device for device in devices(argv))
    assert "-netdev" not in argv


def test_qemu_is_sandboxed_and_the_image_read_only() -> None:
    argv = qemu.arguments(MACHINE, FILES, qemu.Clone())
    assert argv[argv.index("-sandbox") + 1].count("deny") == 4
    image = next(value for value in argv if "node-name=image" in value)
    assert "read-only=on" in image


@pytest.mark.parametrize(
    "change", [{"ram_bytes": 256 * MIB}, {"vcpus": 2}, {"network": False}, {"accelerator": "kvm"},
               {"tsc_khz": 1}, {"ram_maximum": 1024 * MIB}, {"vcpus_maximum": 4}],
)  # fmt: skip
def test_every_part_of_the_shape_changes_the_key(change: dict[str, int]) -> None:
    assert replace(MACHINE, **change).key() != MACHINE.key()  # type: ignore[arg-type]


def test_descriptors_that_are_not_there_are_left_out() -> None:
    assert qemu.Files(3, 4, 5, Opened.single(6)).descriptors() == (3, 4, 5, 6)


# -- initramfs ----------------------------------------------------------------------------------


def members(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name, read back from a `newc` archive."""
    found: dict[str, tuple[int, bytes]] = {}
    offset = 0
    while True:
        fields = [int(data[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        name = data[offset + 110 : offset + 110 + fields[11] - 1].decode()
        start = (offset + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (fields[1], data[start : start + fields[6]])
        offset = (start + fields[6] + 3) & ~3


def test_the_initramfs_holds_init_and_the_modules_in_order() -> None:
    data = initramfs.build(b"#init", [("virtio", b"a"), ("virtio_blk", b"bcd")])
    found = members(data)
    assert found["init"] == (0o100755, b"#init")
    assert found["modules"][1] == b"/lib/virtio.ko\n/lib/virtio_blk.ko\n"
    assert found["lib/virtio_blk.ko"][1] == b"bcd"
    assert found["dev/console"][0] == 0o020600
    assert found["mnt/root"][0] == 0o040755


def test_the_initramfs_is_the_same_every_time() -> None:
    assert initramfs.build(b"x", [("a", b"1")]) == initramfs.build(b"x", [("a", b"1")])


# -- modules ------------------------------------------------------------------------------------


def module(directory: Path, name: str, depends: str, suffix: str = "") -> None:
    """A file with the one part of a module that is read."""
    data = b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=x\0"
    packed = {"": data, ".xz": lzma.compress(data), ".gz": gzip.compress(data)}[suffix]
    (directory / f"{name}.ko{suffix}").write_bytes(packed)


def test_only_a_named_kernel_may_be_unable_to_share(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in modules.REQUIRED:
        module(tmp_path / "tree", name, "")
    image = tmp_path / "vmlinuz"
    image.write_bytes(b"\x7fELF" + bytes(64))
    source = guest.Source(image, tmp_path / "tree", "1", "named: x", shares=False)
    made = guest.prepare(tmp_path / "kernels", source)
    assert made.absent == modules.SHARES and made.modules == modules.REQUIRED
    assert guest.only(tmp_path / "kernels") == made
    with pytest.raises(Unsupported, match="no module '9pnet_virtio'"):
        guest.prepare(tmp_path / "others", replace(source, shares=True))


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    module(tmp_path, "ext4", "jbd2,crc16", ".xz")
    module(tmp_path, "jbd2", "")
    module(tmp_path, "crc16", "", ".gz")
    module(tmp_path, "virtio-blk", "virtio")
    (tmp_path / "modules.builtin").write_text("kernel/drivers/virtio/virtio.ko\n")
    tree = modules.scan(tmp_path)
    assert modules.order(tree, ("ext4", "virtio_blk"), ()) == (
        "jbd2", "crc16", "ext4", "virtio_blk")  # fmt: skip


def test_a_missing_module_is_named_and_an_optional_one_skipped(tmp_path: Path) -> None:
    tree = modules.scan(tmp_path)
    assert modules.order(tree, (), ("af_packet",)) == ()
    with pytest.raises(Unsupported, match="'erofs'"):
        modules.order(tree, ("erofs",), ())


def test_modules_that_need_each_other_do_not_loop(tmp_path: Path) -> None:
    module(tmp_path, "a", "b")
    module(tmp_path, "b", "a")
    assert set(modules.order(modules.scan(tmp_path), ("a",), ())) == {"a", "b"}


# -- the kernel image ---------------------------------------------------------------------------


def bzimage(payload: bytes) -> bytes:
    """A boot sector, one setup sector, then the payload."""
    header = bytearray(1024)
    header[0x1F1] = 1
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", header, 0x248, 0, len(payload))
    return bytes(header) + payload


@pytest.mark.parametrize("pack", [lzma.compress, lambda d: zlib.compress(d, wbits=31)])
def test_a_kernel_is_decompressed(pack: object) -> None:
    kernel = b"\x7fELF" + bytes(100)
    assert callable(pack)
    payload = pack(kernel) + struct.pack("<I", len(kernel))
    assert guest.decompress(bzimage(payload)) == kernel
    assert guest.decompress(kernel) == kernel


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(Corrupt):
        guest.decompress(b"MZ" + bytes(4096))
    with pytest.raises(Unsupported, match="compression"):
        guest.decompress(bzimage(b"??????"))
    with pytest.raises(Corrupt):
        guest.decompress(bzimage(lzma.compress(b"not an ELF file")))


# -- plans and shapes ---------------------------------------------------------------------------


def test_without_network_the_place_has_a_network_namespace_of_its_own() -> None:
    alone, linked = plans.place(network=False)[0], plans.place(network=True)[0]
    assert isinstance(alone, plan.Namespaces) and "net" in alone.kinds
    assert isinstance(linked, plan.Namespaces) and "net" not in linked.kinds


def test_a_clone_gets_entropy_first() -> None:
    steps = plans.clone_setup(b"\1" * 64, Limits(memory_bytes=5, pids=7))
    assert steps[0] == plan.Entropy("01" * 64)
    written = {s.path: s.content for s in steps if isinstance(s, plan.Write)}
    assert written == {f"{plans.PLACE_CGROUP}/memory.max": "5",
                       f"{plans.PLACE_CGROUP}/pids.max": "7"}  # fmt: skip


def test_sources_mount_shares_where_they_survive_the_new_root() -> None:
    found = plans.sources((LINK,), (Share(Path("/a"), "/b"), Share(Path("/c"), "/d")), "0" * 32)
    assert found.shares == ("/dev/.shares/0", "/dev/.shares/1")
    assert plan.Mask("/dev/.shares") in found.after
    assert plan.Route("10.0.0.1") in found.before
    assert not any(isinstance(s, plan.MountFs) and s.kind == "9p"
                   for s in plans.sources((), (), "0" * 32).before)  # fmt: skip


@pytest.mark.parametrize(
    ("memory_mib", "cpus", "expected"),
    [(0, 0, (1024, 1)), (64, 0, (256, 1)), (160, 1, (256, 1)), (161, 0.5, (512, 1)),
     (4096, 0, (5120, 1)), (9000, 0, (9216, 1))],
)  # fmt: skip
def test_shapes(memory_mib: int, cpus: float, expected: tuple[int, int]) -> None:
    limits = Limits(memory_bytes=memory_mib * MIB, cpus=cpus)
    assert settings.shape(limits, settings.Settings()) == expected


def test_settings_are_checked() -> None:
    assert settings.Settings.parse({"memory_mib": 256}).memory_mib == 256
    for table in ({"memory": 1}, {"memory_mib": "1"}, {"template": 1}, {"accelerator": "xen"}):
        with pytest.raises(Invalid):
            settings.Settings.parse(table)


# -- the guest's account ------------------------------------------------------------------------


def record(content: bytes, path: bytes = b"/x") -> bytes:
    """As `builtin read` writes it."""
    return inside.RECORD.pack(len(path), 0, 0, 0, 0, 0, 0, 0, len(content), 0) + path + content


def test_records_are_cut_apart_and_short_ones_refused() -> None:
    data = record(b"one") + record(b"")
    assert inside.records(data, 2) == [b"one", b""]
    for broken in (data[:-1], data[:20], record(b"x") * 0):
        with pytest.raises(IsolationError):
            inside.records(broken, 2)


def test_an_account_is_understood() -> None:
    found = inside.parse({
        "/proc/meminfo": "MemTotal:        2 kB\nMemFree: 1 kB\n",
        "memory.current": "100\n", "memory.max": "max\n", "memory.peak": "", "pids.current": "3\n",
        "cpu.stat": "usage_usec 5\nuser_usec 3\n", "memory.events": "oom 1\noom_kill 2\n",
        "io.stat": "254:0 rbytes=10 wbytes=20 rios=1\n254:16 rbytes=1 wbytes=2\n",
    })  # fmt: skip
    assert (found.memory_bytes, found.memory_limit, found.pids) == (100, 2048, 3)
    assert (found.cpu_ns, found.oom_kills) == (5000, 2)
    assert (found.read_bytes, found.write_bytes) == (11, 22)


@pytest.mark.parametrize(
    ("configured", "wanted", "thrown_away", "used"),
    [
        ("writeback", "", False, "writeback"),
        ("none", "", False, "none"),
        ("none", "writethrough", False, "writethrough"),
        ("unsafe", "", False, "writeback"),
        ("unsafe", "", True, "unsafe"),
        ("writeback", "unsafe", False, "unsafe"),
    ],
)
def test_the_unsafe_cache_is_for_what_asks_or_is_thrown_away(
    configured: str, wanted: str, thrown_away: bool, used: str
) -> None:
    known = settings.Settings.parse({"disk_cache": configured})
    assert settings.cache_mode(known, wanted, thrown_away=thrown_away) == used


def test_an_unknown_cache_mode_is_refused() -> None:
    with pytest.raises(Invalid, match="fast"):
        settings.Settings.parse({"disk_cache": "fast"})


def test_a_chain_is_one_graph_that_names_every_node_below() -> None:
    opened = Opened((9, 8, 7), ("qcow2", "qcow2", "raw"), (4, 2, 0))
    words = blocks.arguments("disk", opened, blocks.CACHES["none"])
    below = ",opaque=read-only"
    sets = ("fd=9,set=9", f"fd=8,set=8{below}", f"fd=7,set=7{below}")
    assert words[:6] == tuple(word for item in sets for word in ("-add-fd", item))
    top = json.loads(words[-1])
    middle, bottom = top["backing"], top["backing"]["backing"]
    assert [node["node-name"] for node in (top, middle, bottom)] == ["disk.4", "disk.2", "disk.0"]
    assert [node["read-only"] for node in (top, middle, bottom)] == [False, True, True]
    assert top["file"]["filename"] == "/dev/fdset/9"
    assert "backing" not in bottom
    alone = json.loads(blocks.arguments("disk", Opened((9,), ("qcow2",)), blocks.WRITEBACK)[-1])
    assert alone["backing"] is None
    assert top["file"]["aio"] == "native"
    assert top["cache"] == {"direct": True, "no-flush": False}
