"""The verbs of launch plans, run for real in places made by the real monitor."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from proa import plan
from proa.host import mounts
from tests.native.box import CONFINED, Box
from tests.native.monitor import BINARY, Monitor

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")

# -- the root -------------------------------------------------------------------------------------


def test_the_place_of_a_container(box: Box) -> None:
    done = box.probe("mounts")
    lines = [line.split() for line in done.out.splitlines()]
    targets = {target: (kind, options.split(",")) for target, kind, options in lines}
    assert set(targets) >= {"/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"}
    assert "ro" in targets["/sys"][1] and "ro" in targets["/proc/sys"][1]
    assert targets["/proc/keys"][0] in ("devtmpfs", "tmpfs")
    assert not [target for target in targets if target.startswith("/.root")]
    assert all(
        "nodev" in options or target.startswith(("/dev", "/proc/"))
        for target, (_, options) in targets.items()
    )


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/tmp", "etc", "/nowhere", "../../../tmp"])
def test_kernel_trees_are_never_mounted_through_a_link(box: Box, name: str, target: str) -> None:
    (box.root / "etc").mkdir()
    (box.root / name).symlink_to(target)
    done = box.probe("exit", "0")
    assert (done.verb, done.argument, done.error) == ("root", f"/{name}", errno.ENOTDIR)


def test_a_file_in_the_place_of_proc_is_refused(box: Box) -> None:
    box.file("proc")
    done = box.probe("exit", "0")
    assert (done.verb, done.argument, done.error) == ("root", "/proc", errno.ENOTDIR)


def test_readonly_root(box: Box) -> None:
    done = box.probe("write", "/x", "y", before=[plan.ReadOnly("/")])
    assert done.code == 1 and "Read-only" in done.err
    assert not (box.root / "x").exists()


# -- attaching ------------------------------------------------------------------------------------


def test_attach_makes_targets_and_stays_inside(box: Box, tmp_path: Path) -> None:
    (tmp_path / "share").mkdir()
    (tmp_path / "share" / "f").write_text("shared")
    (box.root / "out").symlink_to("../../../../../../etc/escaped")
    trees = [mounts.open_tree(tmp_path / "share") for _ in range(3)]
    file = mounts.open_tree(tmp_path / "share" / "f")
    done = box.run(
        plan.Attach("fd:1", "/data/deep"), plan.Attach("fd:2", "/out", "ro"),
        plan.Attach("fd:3", "/data/deep2", "ro,noexec"), plan.Attach("fd:4", "/one/file"),
        *CONFINED, plan.Exec(("/probe", "mounts")), trees=[*trees, file],
    )  # fmt: skip
    found = {line.split()[0]: line.split()[2].split(",") for line in done.out.splitlines()}
    assert {"/data/deep", "/etc/escaped", "/data/deep2", "/one/file"} <= set(found)
    assert "ro" in found["/etc/escaped"] and "noexec" in found["/data/deep2"]
    assert (box.root / "etc/escaped").is_dir() and (box.root / "one/file").is_file()
    assert not Path("/etc/escaped").exists()


@pytest.mark.parametrize("target", ["/proc", "/sneaky", "/proc/self/attr", "/proc/sys"])
def test_attach_below_proc_is_refused(box: Box, tmp_path: Path, target: str) -> None:
    (box.root / "sneaky").symlink_to("/proc")
    tree = mounts.open_tree(tmp_path)
    done = box.run(plan.Attach("fd:1", target), plan.Exec(("/probe",)), trees=[tree])
    os.close(tree)
    assert (done.verb, done.argument, done.error) == ("attach", target, errno.EPERM)


def test_descriptors_not_sent_are_refused(box: Box) -> None:
    done = box.run(plan.Attach("fd:7", "/x"), plan.Exec(("/probe",)))
    assert (done.verb, done.argument, done.error) == ("attach", "fd:7", errno.EBADF)


def test_magic_links_lead_nowhere(box: Box) -> None:
    (box.root / "magic").symlink_to("/proc/self/fd/0/../../..")
    done = box.run(plan.Directory("/magic/x"), plan.Exec(("/probe", "exit", "0")))
    assert (done.verb, done.error) == ("dir", errno.ELOOP)


# -- files ----------------------------------------------------------------------------------------


def test_cover_leaves_the_image_alone(box: Box) -> None:
    box.file("/etc/hosts", "image's")
    done = box.probe("read", "/etc/hosts", before=[plan.Cover("/etc/hosts", "0644", "ours\n")])
    assert done.out == "ours\n"
    assert (box.root / "etc/hosts").read_text() == "image's"


COVERS = [plan.Cover("/etc/hosts", "0644", text) for text in ("", "the first\n", "next\n")]


def test_a_cover_that_is_there_is_filled_anew(box: Box) -> None:
    box.file("/etc/hosts", "image's")
    assert box.probe("read", "/etc/hosts", before=COVERS).out == "next\n"
    assert (box.root / "etc/hosts").read_text() == "image's"


def test_a_cover_is_bound_once(box: Box) -> None:
    mounts = box.probe("read", "/proc/self/mountinfo", before=COVERS).out
    assert mounts.count(" /etc/hosts ") == 1


@pytest.mark.parametrize("size", [32000, 32768, 40000])
def test_a_plan_of_any_size_arrives(box: Box, size: int) -> None:
    steps: list[plan.Step] = [plan.Environment(f"N{n}={'x' * 4000}") for n in range(size // 4000)]
    box.file("/end", "")
    steps.append(plan.Write("/end", "0644", "here"))
    box.probe("read", "/end", before=steps)
    assert (box.root / "end").read_text() == "here"


def test_cover_of_a_dangling_link(box: Box) -> None:
    (box.root / "etc").mkdir()
    (box.root / "etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
    cover = plan.Cover("/etc/resolv.conf", "0600", "nameserver 1.1.1.1\n")
    done = box.probe("stat", "/run/resolve/stub.conf", before=[cover])
    assert done.out.split()[:4] == ["-", "0600", "0", "0"]


def test_a_ring_of_links_ends(box: Box) -> None:
    (box.root / "a").symlink_to("b")
    (box.root / "b").symlink_to("a")
    done = box.run(plan.Cover("/a", "0644", ""), plan.Exec(("/probe",)))
    assert (done.verb, done.argument, done.error) == ("cover", "/a", errno.ELOOP)


def test_files_directories_and_links(box: Box) -> None:
    box.file("/kept", "longer than that")
    done = box.probe("ls", "/made", before=[
        plan.Directory("/made/deep/er", "1777"), plan.Write("/made/file", "0640", "content"),
        plan.Write("/kept", "0600", "short"), plan.Symlink("file", "/made/link"),
        plan.Symlink("other", "/made/link"), plan.Umask("0027"),
    ])  # fmt: skip
    assert done.out.split() == ["deep", "file", "link"]
    assert (box.root / "made/deep/er").stat().st_mode & 0o7777 == 0o1777
    assert (box.root / "made/file").stat().st_mode & 0o7777 == 0o640
    assert (box.root / "kept").read_text() == "short"
    assert (box.root / "kept").stat().st_mode & 0o7777 == 0o644
    assert os.readlink(box.root / "made/link") == "file"


def test_tmpfs_of_the_image(box: Box) -> None:
    mount = plan.MountFs("tmpfs", "tmpfs", "/scratch", "nosuid,noexec", "size=64k,mode=0700")
    done = box.probe("stat", "/scratch", before=[mount])
    assert done.out.split()[:2] == ["d", "0700"]


def test_unknown_mount_flags_are_refused(box: Box) -> None:
    done = box.run(plan.MountFs("tmpfs", "x", "/x", "ro,bogus"), plan.Exec(("/probe",)))
    assert (done.verb, done.argument, done.error) == ("mount", "ro,bogus", errno.EINVAL)


# -- kernel settings ------------------------------------------------------------------------------


def test_settings_reach_past_what_is_readonly(box: Box) -> None:
    done = box.probe("read", "/proc/sys/net/ipv4/ip_forward", before=[
        plan.Sysctl("net.ipv4.ip_forward", "1"), plan.OomScore(123), plan.Hostname("boat"),
    ])  # fmt: skip
    assert done.out == "1\n"


@pytest.mark.parametrize("name", ["../self/oom_score_adj", "net/../../x", "nothing.like.it", ""])
def test_settings_elsewhere_are_refused(box: Box, name: str) -> None:
    done = box.run(plan.Sysctl(name, "1"), plan.Exec(("/probe",)))
    assert (done.verb, done.argument) == ("sysctl", name)


def test_oom_score_and_hostname(box: Box) -> None:
    steps = [plan.OomScore(123), plan.Hostname("boat")]
    assert box.probe("read", "/proc/self/oom_score_adj", before=steps).out == "123\n"


def test_interface_and_route(box: Box) -> None:
    pid = box.place()
    peer = ["peer", "name", "pvpeer", "netns", str(pid)]
    subprocess.run(["ip", "link", "add", "pvtest9", "type", "veth", *peer], check=True)
    done = box.probe("interfaces", before=[
        plan.Interface("pvpeer", "eth0", "02:11:22:33:44:55", "10.200.9.2/24", 1400),
        plan.Route("10.200.9.1"),
    ])  # fmt: skip
    assert "lo up 00:00:00:00:00:00 127.0.0.1/255.0.0.0 65536" in done.out
    assert "eth0 up 02:11:22:33:44:55 10.200.9.2/255.255.255.0 1400" in done.out


@pytest.mark.parametrize(
    "fields", [("", "1.2.3.4", 0), ("", "1.2.3.4/33", 0), ("zz", "", 0), ("", "", -1)]
)
def test_malformed_interfaces(box: Box, fields: tuple[str, str, int]) -> None:
    done = box.run(plan.Interface("lo", "lo", *fields), plan.Exec(("/probe",)))
    assert done.verb == "interface" and done.error in (errno.EINVAL, errno.ERANGE)


# -- malformed plans ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"exec", b"exec\0", b"exec\x00\x31\0", b"exec\0-1\0", b"exec\x00\x39\x39\x39\x39\x39\0x\0",
     b"exec\0x\0", b"\0\0", b"dir\x001\0/x\0", b"nonsense\x000\0", b"exec\x000\0",
     b"ns\x001\0user\0", b"exec\x002\0/probe\0exit"],
)  # fmt: skip
def test_malformed_plans(box: Box, data: bytes) -> None:
    box.place()
    box.engine.send(3, payload=data)
    frame = box.engine.receive()
    assert frame.type == 67, frame


def test_an_unsent_plan_ends_nothing(tmp_path: Path) -> None:
    with Monitor() as monitor:
        connection = monitor.connect()
        connection.send(11, 0)
        assert connection.receive().type == 64
        connection.sock.close()
        assert monitor.wait() == 0


def test_table_is_sorted() -> None:
    listing = subprocess.run([BINARY, "verbs"], check=True, capture_output=True, text=True).stdout
    names = [line.split()[0] for line in listing.splitlines()]
    assert names == sorted(names)
