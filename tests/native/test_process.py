"""The verbs that shape a process: who it is, what it may do, what it runs."""

from __future__ import annotations

import errno
import os
import time

import pytest

from proa import plan
from tests.native.box import BASE, CONFINED, MASK, Box
from tests.native.monitor import JOIN, OUT, WITH_TTY, read_all

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


# -- the process ----------------------------------------------------------------------------------


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


def test_a_further_terminal_leaves_the_console_alone(box: Box) -> None:
    box.idle(plan.Symlink("/proc/1/environ", "/dev/console"))
    client = box.engine.attach(OUT, 2)
    box.engine.exec(
        2,
        plan.encode((plan.Terminal(9, 8), plan.Exec(("/probe", "stat", "/dev/console")))),
        JOIN | WITH_TTY,
    )
    assert read_all(client).startswith(b"l ")


def test_many_settings(box: Box) -> None:
    settings = [plan.Environment(f"VARIABLE_{n % 5000}={n}") for n in range(10000)]
    done = box.probe("env", before=settings)
    assert len(done.out.splitlines()) == 5000
    assert "VARIABLE_7=5007" in done.out
