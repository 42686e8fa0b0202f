"""What a container may not do, see or keep, tried from inside as its root."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.engine import EngineProcess
from tests.support.instances import Instance, Place
from tests.support.paths import NATIVE

MASKED = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/scsi",
          "/sys/firmware")  # fmt: skip
READ_ONLY = ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/sys")
USUAL_CAPABILITIES = 0x00000000A80425FB  # Docker's default set


@pytest.fixture
def inside(container: Place) -> Instance:
    """A running container to try things in."""
    return container.start("busy", "sleep", "1000")


def status(instance: Instance) -> dict[str, str]:
    """/proc/self/status of an exec."""
    text = instance.exec("cat", "/proc/self/status").stdout
    return {
        key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def test_root_inside_is_nobody_outside(inside: Instance) -> None:
    first, outer, count = inside.exec("cat", "/proc/self/uid_map").stdout.split()
    assert (first, count) == ("0", "65536")
    assert int(outer) >= 0x40000000
    assert inside.exec("cat", "/proc/self/gid_map").stdout.split()[1] == outer
    pid = inside.state()["Pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == int(outer)


def test_no_two_instances_share_ids(container: Place) -> None:
    pair = [container.start("busy", "sleep", "1000") for _ in range(2)]
    maps = {instance.exec("cat", "/proc/self/uid_map").stdout for instance in pair}
    assert len(maps) == 2


def test_namespaces_of_its_own(inside: Instance) -> None:
    kinds = ("user", "pid", "mnt", "net", "ipc", "uts", "cgroup")
    for pid in (inside.state()["Pid"], "exec"):
        for kind in kinds:
            ours = os.readlink(f"/proc/self/ns/{kind}")
            theirs = (
                inside.exec("readlink", f"/proc/self/ns/{kind}").stdout.strip()
                if pid == "exec"
                else os.readlink(f"/proc/{pid}/ns/{kind}")
            )
            assert theirs.startswith(f"{kind}:")
            assert theirs != ours, kind


def test_few_capabilities_none_inheritable(inside: Instance) -> None:
    for found in (status(inside), main_status(inside)):
        assert int(found["CapInh"], 16) == 0
        assert int(found["CapAmb"], 16) == 0
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(found[name], 16) & ~USUAL_CAPABILITIES == 0, name


def main_status(instance: Instance) -> dict[str, str]:
    """/proc/<main>/status seen from the host."""
    text = Path(f"/proc/{instance.state()['Pid']}/status").read_text()
    return {
        key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())
    }


def test_no_new_privileges_and_a_seccomp_filter(inside: Instance) -> None:
    for found in (status(inside), main_status(inside)):
        assert found["NoNewPrivs"] == "1"
        assert found["Seccomp"] == "2"


def test_a_user_has_no_capability_left(container: Place) -> None:
    result = container.run("busy", "grep", "Cap", "/proc/self/status", User="alice")
    masks = {line.split()[0]: int(line.split()[1], 16) for line in result.stdout.splitlines()}
    assert masks["CapEff:"] == masks["CapPrm:"] == masks["CapInh:"] == 0


@pytest.mark.parametrize("path", MASKED)
def test_masked_paths_show_nothing(inside: Instance, path: str) -> None:
    result = inside.exec("sh", "-c", f"cat {path} 2>/dev/null || ls -A {path} 2>/dev/null")
    assert result.stdout == ""


@pytest.mark.parametrize("path", READ_ONLY)
def test_read_only_paths_refuse_writing(inside: Instance, path: str) -> None:
    script = f"test -d {path} && touch {path}/x || echo b >{path}"
    assert inside.exec("sh", "-c", script).code != 0


def test_kernel_settings_cannot_be_changed(inside: Instance) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    for name in ("kernel/core_pattern", "kernel/modprobe", "vm/panic_on_oom"):
        result = inside.exec("sh", "-c", f"echo '|/bin/sh' >/proc/sys/{name}")
        assert result.code != 0, name
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


@pytest.mark.parametrize(
    "command",
    [
        "mount -t tmpfs none /mnt_",
        "mount -t proc none /mnt_",
        "mount --bind /etc /mnt_",
        "mount -o remount,rw /proc/sys",
        "umount /proc/kcore",
        "umount -l /proc",
        "mount -t cgroup -o memory cgroup /mnt_",
        "mount -t cgroup2 none /mnt_",
        "unshare -r true",
        "unshare -m true",
        "unshare -n true",
        "mknod /node b 254 0",
        "mknod /node c 1 1",
        "chroot /proc/1/root/.. ls /proc/1/root/../work",
        "swapon /etc/passwd",
        "insmod /etc/passwd",
        "reboot -f",
        "dmesg",
        "nsenter -t 1 -m true",
    ],
)
def test_privileged_operations_are_denied(inside: Instance, command: str) -> None:
    result = inside.exec("sh", "-c", f"mkdir -p /mnt_; {command}")
    assert result.code != 0, result.stdout
    assert inside.exec("echo", "alive").stdout == "alive\n"


def test_hostname_stays_its_own(inside: Instance) -> None:
    before = os.uname().nodename
    inside.exec("hostname", "changed")
    assert os.uname().nodename == before


def test_release_agent_is_out_of_reach(inside: Instance) -> None:
    found = inside.exec("find", "/sys/fs/cgroup", "-name", "release_agent", "-writable").stdout
    assert found == ""
    assert inside.exec("sh", "-c", "mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x").code != 0


def test_a_small_dev(inside: Instance) -> None:
    allowed = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm",
               "mqueue", "fd", "stdin", "stdout", "stderr", "core"}  # fmt: skip
    assert set(inside.exec("ls", "/dev").stdout.split()) <= allowed


def test_no_descriptor_leaks(container: Place) -> None:
    """Neither the main process nor an exec holds more than its three streams."""
    listing = container.run("busy", "ls", "/proc/self/fd").stdout.split()
    assert set(listing) == {"0", "1", "2", "3"}, "3 is the directory being listed"
    inside = container.start("busy", "sleep", "1000")
    assert set(inside.exec("ls", "/proc/self/fd").stdout.split()) == {"0", "1", "2", "3"}
    pid = inside.state()["Pid"]
    assert set(os.listdir(f"/proc/{pid}/fd")) == {"0", "1", "2"}


def test_an_exec_cannot_be_robbed_on_entering(inside: Instance) -> None:
    """CVE-2016-9962: a watcher inside lists every process's descriptors while execs enter."""
    script = (
        "while :; do ls -l /proc/[0-9]*/fd /proc/[0-9]*/cwd /proc/[0-9]*/root 2>/dev/null; done"
    )
    identity = inside.exec_create("sh", "-c", f"timeout 4 sh -c '{script}'")
    stream = inside.exec_start(identity)
    for _ in range(20):
        inside.exec("true")
    seen = b""
    while piece := stream.recv(65536):
        seen += piece
    targets = {line.split(b" -> ")[1].strip() for line in seen.splitlines() if b" -> /" in line}
    foreign = {t for t in targets if b"proa" in t or b".sock" in t or t.startswith(b"/work")}
    assert not foreign


def test_the_native_program_cannot_be_overwritten(container: Place) -> None:
    """CVE-2019-5736: /proc/self/exe of whatever enters is not a way to the host's binary."""
    from tests.support.images import archive, busy_layer

    before = NATIVE.read_bytes()
    layer = busy_layer()
    layer.file("self", "#!/proc/self/exe\n", 0o755)
    container.api.load(archive("selfish", layer.bytes(), Env=["PATH=/bin"]))
    instance = container.start("selfish", "sleep", "1000")
    writer = (
        "for i in $(seq 200); do for p in /proc/[0-9]*/exe; do echo x 2>/dev/null >>$p; done; done"
    )
    stream = instance.exec_start(instance.exec_create("sh", "-c", f"({writer}) 2>/dev/null"))
    for _ in range(20):
        try:
            instance.exec("/self")
        except Exception as refusal:
            assert "500" not in str(refusal)[:3]
    stream.close()
    assert NATIVE.read_bytes() == before


def test_no_abstract_socket(session_engine: EngineProcess, inside: Instance) -> None:
    """CVE-2020-15257: nothing of ours listens where a shared network namespace could reach it."""
    names = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines()]
    assert not [name for name in names if name.startswith("@") and "proa" in name]


def test_the_root_directory_is_closed_to_others(session_engine: EngineProcess) -> None:
    """CVE-2021-41091: no local user walks into an image's setuid files."""
    for path in (
        session_engine.root / "instances",
        session_engine.root / "images",
    ):
        assert path.stat().st_mode & 0o007 == 0, path
    who = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    reach = subprocess.run([*who, "ls", session_engine.root / "images"], capture_output=True)
    assert reach.returncode != 0
    assert session_engine.socket.stat().st_mode & 0o007 == 0


DENIED = """
    mount umount2 pivot_root unshare setns clone-newuser bpf keyctl add_key userfaultfd
    io_uring_setup fsopen open_tree reboot swapon init_module kexec_load perf_event_open
    settimeofday sethostname open_by_handle_at socket-alg socket-vsock personality-norandom
""".split()


@pytest.mark.parametrize("call", DENIED)
def test_system_calls_outside_the_list_are_denied(inside: Instance, call: str) -> None:
    assert inside.exec("/probe", "seccomp", call).stdout.strip() in {"EPERM", "ENOSYS", "EACCES"}


@pytest.mark.parametrize("call", ["getpid", "socket-inet", "personality-linux", "ptrace"])
def test_ordinary_system_calls_work(inside: Instance, call: str) -> None:
    assert inside.exec("/probe", "seccomp", call).stdout.strip() == "0"


@pytest.mark.parametrize("call", ["clone3", "future"])
def test_calls_from_the_future_are_unknown_not_forbidden(inside: Instance, call: str) -> None:
    """A C library falls back on ENOSYS; EPERM would break it."""
    assert inside.exec("/probe", "seccomp", call).stdout.strip() == "ENOSYS"
