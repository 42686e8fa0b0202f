"""The verbs of launch plans, run for real in places made by the real monitor."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa import plan
from proa.host import mounts
from tests.native.box import BASE, CONFINED, MASK, Box
from tests.native.monitor import BINARY, OUT, WITH_TTY, Monitor, read_all

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="places need root")

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
# a comment
alice:x:1000:1000:Alice:/home/alice:/bin/sh
bob:x:1001:100::/home/bob:
1234:x:77:77::/odd:
huge:x:4294967296:1::/:
"""
GROUP = "root:x:0:\nwheel:x:10:alice,bob\nusers:x:100:\naudio:x:29:bob,alice\nhuge:x:99999999999:\n"


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()


# -- the root ------------------------------------------------------------------------------------


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


# -- attaching -----------------------------------------------------------------------------------


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


# -- files ---------------------------------------------------------------------------------------


def test_cover_leaves_the_image_alone(box: Box) -> None:
    box.file("/etc/hosts", "image's")
    done = box.probe("read", "/etc/hosts", before=[plan.Cover("/etc/hosts", "0644", "ours\n")])
    assert done.out == "ours\n"
    assert (box.root / "etc/hosts").read_text() == "image's"


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


# -- kernel settings -------------------------------------------------------------------------------


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


# -- the process -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), "0 0 0"),
        ("root", (), "0 0 0"),
        ("alice", (), "1000 1000 10,29,1000"),
        ("1000", (), "1000 1000 10,29,1000"),
        ("bob", (), "1001 100 10,29,100"),
        ("1", (), "1 0 0"),
        ("alice:29", (), "1000 29 29"),
        ("alice:users", (), "1000 100 100"),
        (":2", (), "0 2 2"),
        ("4000:4001", ("audio", "5000", "4001"), "4000 4001 29,4001,5000"),
        ("1234", (), "77 77 77"),
        ("2147483647", (), "failed"),  # within Docker's rules, beyond the place's ids
        ("2147483648", (), "failed"),
        ("-1", (), "failed"),
        ("1x", (), "failed"),
        ("+1", (), "failed"),
        ("huge", (), "failed"),
        ("nobody", (), "failed"),
        ("alice:nobody", (), "failed"),
        ("alice:-1", (), "failed"),
        ("alice", ("nobody",), "failed"),
        ("99999999999999999999", (), "failed"),
    ],
)
def test_users(box: Box, user: str, groups: tuple[str, ...], expected: str) -> None:
    box.file("/etc/passwd", PASSWD)
    box.file("/etc/group", GROUP)
    done = box.run(*CONFINED, plan.User(user, groups), plan.Exec(("/probe", "id")))
    if expected == "failed":
        assert done.verb == "user" and done.error in (errno.EINVAL, errno.ERANGE), done
    else:
        assert done.out.strip() == expected, done


def test_users_without_files_and_home(box: Box) -> None:
    done = box.run(*CONFINED, plan.User("1000:7"), plan.Exec(("/probe", "env")))
    assert done.out == "HOME=/\n"


def test_home_of_the_user(box: Box) -> None:
    box.file("/etc/passwd", PASSWD)
    steps = (plan.Environment("A=1"), plan.User("alice"), plan.Environment("A=2"))
    assert box.run(*steps, plan.Exec(("/probe", "env"))).out == "A=2\nHOME=/home/alice\n"


@pytest.mark.parametrize("kind", ["fifo", "directory", "sparse", "device", "outside", "garbage"])
def test_hostile_passwd(box: Box, kind: str) -> None:
    (box.root / "etc").mkdir()
    passwd = box.root / "etc/passwd"
    if kind == "fifo":
        os.mkfifo(passwd)
    elif kind == "directory":
        passwd.mkdir()
    elif kind == "sparse":
        with open(passwd, "wb") as file:
            file.truncate(2 << 30)
    elif kind == "device":
        passwd.symlink_to("/dev/zero")
    elif kind == "outside":
        passwd.symlink_to("../../../../../../../etc/passwd")
    else:
        passwd.write_bytes(os.urandom(1 << 20).replace(b"\0", b":"))
    begun = time.monotonic()
    done = box.run(plan.User("daemon"), plan.Exec(("/probe", "id")))
    assert done.verb == "user" and done.error in (errno.EINVAL, errno.EFBIG, errno.ELOOP), done
    assert time.monotonic() - begun < 5


def caps(box: Box, *steps: plan.Step) -> dict[str, int]:
    done = box.run(*steps, plan.Exec(("/probe", "caps")))
    return {line.split(":")[0]: int(line.split()[1], 16) for line in done.out.splitlines()}


def test_capabilities_of_root(box: Box) -> None:
    found = caps(box, *CONFINED, plan.User(""), plan.Seccomp("default"))
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (MASK, MASK, MASK)
    assert (found["CapInh"], found["CapAmb"]) == (0, 0)
    assert (found["NoNewPrivs"], found["Seccomp"]) == (1, 2)


def test_capabilities_of_others(box: Box) -> None:
    found = caps(box, plan.Seccomp("default"), *CONFINED, plan.User("1000"))
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (0, 0, MASK)


def test_no_capabilities_but_another_user(box: Box) -> None:
    found = caps(box, plan.Capabilities("0"), plan.User("1000:1000", ("5",)))
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (0, 0, 0)


def test_no_capabilities_for_root(box: Box) -> None:
    found = caps(box, plan.Capabilities("0"), plan.User("0"))
    assert (found["CapPrm"], found["CapEff"], found["CapBnd"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("getpid", "0"), ("socket-inet", "0"), ("personality-linux", "0"), ("future", "ENOSYS"),
        ("personality-query", "0"), ("clone3", "ENOSYS"), ("ptrace", "0"),
        *((call, "EPERM") for call in (
            "mount", "umount2", "pivot_root", "unshare", "setns", "clone-newuser", "bpf", "keyctl",
            "add_key", "userfaultfd", "io_uring_setup", "fsopen", "open_tree", "reboot", "swapon",
            "init_module", "kexec_load", "perf_event_open", "settimeofday", "sethostname",
            "open_by_handle_at", "socket-alg", "socket-vsock", "personality-norandom")),
    ],
)  # fmt: skip
def test_system_calls(box: Box, call: str, expected: str) -> None:
    done = box.run(plan.Seccomp("default"), plan.Exec(("/probe", "seccomp", call)))
    if expected == "0":
        assert not done.out.startswith("E"), done
    else:
        assert done.out.strip() == expected, done


def test_exec_lookup(box: Box) -> None:
    box.file("/a/tool", "", 0o644)
    box.file("/b/tool", "#!/probe exit\n", 0o755)
    path = plan.Environment("PATH=/nowhere:/a:/b")
    assert box.run(path, plan.Exec(("tool",))).code == 0


@pytest.mark.parametrize(
    ("path", "command", "expected"),
    [
        ("/a", "tool", errno.EACCES),
        ("/a", "missing", errno.ENOENT),
        ("/a", "", errno.ENOENT),
        ("/a", "/a/tool", errno.EACCES),
        ("/a", "/a", errno.EACCES),
        ("/a", "/a/tool/x", errno.ENOTDIR),
        ("/c", "garbage", errno.ENOEXEC),
        ("/c", "script", errno.ENOENT),
    ],
)
def test_exec_failures(box: Box, path: str, command: str, expected: int) -> None:
    box.file("/a/tool", "", 0o644)
    box.file("/c/garbage", "no program", 0o755)
    box.file("/c/script", "#!/no/such/interpreter\n", 0o755)
    done = box.run(plan.Environment(f"PATH={path}"), plan.Exec((command,)))
    assert (done.verb, done.argument, done.error) == ("exec", command, expected)


def test_limits_directory_and_umask(box: Box) -> None:
    limits = (plan.Rlimit("nofile", 100, 200), plan.Rlimit("core", 0, -1))
    assert box.probe("limit", "nofile", before=limits).out == "100 200\n"


def test_work_directory_is_made(box: Box) -> None:
    assert box.probe("cwd", before=[plan.WorkDirectory("/srv/a/b")]).out == "/srv/a/b\n"
    assert (box.root / "srv/a/b").is_dir()


@pytest.mark.parametrize("path", ["/proc/self/fd/3", "/proc/1/root", "/proc/self/cwd"])
def test_work_directory_through_descriptors(box: Box, path: str) -> None:
    done = box.run(plan.WorkDirectory(path), plan.Exec(("/probe",)))
    assert (done.verb, done.argument) == ("cwd", path)
    assert done.error in (errno.ELOOP, errno.EACCES, errno.ENOENT)


def test_terminal(box: Box) -> None:
    box.place()
    client = box.engine.attach(OUT)
    steps = (plan.Terminal(33, 44), *CONFINED, plan.User("1000"), plan.Exec(("/probe", "tty")))
    assert box.launch(*steps, flags=WITH_TTY) is None
    assert read_all(client).split(b"\r\n") == [b"tty 33 44"] * 3 + [b""]


def test_terminal_belongs_to_its_user_and_is_the_console(box: Box) -> None:
    box.place()
    client = box.engine.attach(OUT)
    steps = (plan.Terminal(), plan.User("1000"), plan.Exec(("/probe", "stat", "/dev/console")))
    assert box.launch(*steps, flags=WITH_TTY) is None
    assert read_all(client).split()[:4] == [b"c", b"0620", b"1000", b"5"]


def test_no_descriptor_is_left(box: Box) -> None:
    done = box.probe("fds")
    assert [line.split()[0] for line in done.out.splitlines()] == ["0", "1", "2"]


def test_identity_map(box: Box) -> None:
    assert box.probe("read", "/proc/self/uid_map").out.split() == ["0", str(BASE), "65536"]


# -- malformed plans --------------------------------------------------------------------------------


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
