"""QEMU taken over by its guest: what it may do then, tried by a program with exactly its plan."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from proa import capabilities
from proa.host import features
from proa.isolation.vm import confinement
from tests.conftest import need
from tests.hostile import qemu_position
from tests.support import hulls

Answers = dict[str, str]
ABSENT = "ENOENT"
GONE = {"clone3": "ENOSYS", "nfsservctl": "EPERM"}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[hulls.Yard]:
    need(os.geteuid() == 0, "root", "hulls need root")
    with hulls.yard(tmp_path_factory.mktemp("yard")) as made:
        yield made


@pytest.fixture(scope="module")
def host(yard: hulls.Yard) -> Iterator[dict[str, list[str]]]:
    """What there is of the host's and of a neighbour's, by what is tried with it."""
    neighbour = yard.launch("import time; time.sleep(1000)", yard.root / "neighbour-disk")
    place = neighbour.berth.place
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0proa-test")
        abstract.listen()
        yield {
            "read": [
                "/etc/passwd", "/etc/shadow", "/etc/ld.so.cache", "/usr/bin/sh", "/usr/share/doc",
                "/usr/lib/os-release", "/proc/sys/kernel/hostname", "/proc/kcore", "/proc/keys",
                "/dev/mem", "/dev/sda", "/dev/vda", "/dev/net/tun", "/dev/fuse", "/dev/ptmx",
                "/dev/null", "/dev/urandom", "/proc/self/status", f"/proc/{place.pid}/environ",
                f"/proc/{os.getpid()}/mem", str(yard.root / "neighbour-disk"),
                str(place.directory / "qemu.log"),
            ],
            "list": ["/", "/etc", "/usr", "/root", "/home", "/sys/class/net", "/proc", "/run",
                     str(yard.root), "/usr/lib", "/dev/shm"],
            "write": ["/x", "/tmp/x", "/dev/shm/x", "/dev/mqueue/x", "/run/x", "/usr/lib/x",
                      "/usr/bin/qemu-system-x86_64", "/etc/ld.so.cache", "/proc/self/oom_score_adj",
                      "/proc/sys/kernel/core_pattern", "/sys/fs/cgroup/cgroup.procs"],
            "connect": ["/run/proa/proa.sock", "/var/run/docker.sock", "/run/dbus/socket",
                        str(yard.places.socket_path(place.name))],
            "kill": [str(place.pid), str(os.getpid()), str(os.getppid())],
        }  # fmt: skip
    neighbour.end()


@pytest.fixture(scope="module")
def answers(yard: hulls.Yard, host: dict[str, list[str]]) -> Iterator[Answers]:
    """What the stranger was told, try by try."""
    image = yard.root / "image"
    image.write_bytes(b"read only")
    script = Path(qemu_position.__file__).read_text()
    taken = yard.launch(script, yard.root / "disk", image)
    with taken.control as control:
        control.settimeout(30)
        control.sendall(json.dumps(host).encode() + b"\n")
        told = control.makefile().readline()
        assert told, taken.berth.last_words()
        yield json.loads(told)
    taken.end()
    assert image.read_bytes() == b"read only"


def test_the_attempts_are_the_ones_meant(answers: Answers) -> None:
    """What QEMU needs works, so the refusals are not a broken probe's."""
    for name in ("thread", "memory", "unix socket", "image again", "read /dev/null",
                 "read /dev/urandom", "read /etc/ld.so.cache", "read /proc/self/status",
                 "list /usr/lib", "read /usr/lib/os-release"):  # fmt: skip
        assert answers[name] == "ok", name


@pytest.mark.parametrize("name", sorted(qemu_position.NUMBERS))
def test_system_calls_it_does_not_need(answers: Answers, name: str) -> None:
    assert answers[f"call {name}"] == GONE.get(name, "EPERM")


@pytest.mark.parametrize("family", qemu_position.FAMILIES)
def test_no_sockets_but_unix_ones(answers: Answers, family: str) -> None:
    assert answers[f"socket {family}"] == "EPERM"


def test_nothing_else_is_ever_executed(answers: Answers) -> None:
    assert answers["execve sh"] == answers["execveat sh"] == "EPERM"
    assert answers["execveat own"] == "EBADF"
    assert answers["dup to the program"] == "EBADF"
    assert answers["limit nofile"] in ("EPERM", "ValueError")
    assert answers["clone process"] == answers["clone newuser"] == "EPERM"


def test_files_of_the_host_are_not_there(answers: Answers, yard: hulls.Yard) -> None:
    for path in ("/etc/passwd", "/etc/shadow", "/dev/mem", "/dev/sda", "/dev/vda", "/dev/net/tun",
                 "/dev/fuse", str(yard.root / "neighbour-disk")):  # fmt: skip
        assert answers[f"read {path}"] == ABSENT, path
    assert answers[f"list {yard.root}"] == ABSENT


def test_what_is_there_but_not_its_own_is_refused(answers: Answers) -> None:
    need(confinement.landlock_abi(), "landlock", "this kernel has no Landlock")
    for path in ("/usr/bin/sh", "/usr/share/doc", "/proc/sys/kernel/hostname", "/dev/ptmx"):
        assert answers[f"read {path}"] == "EACCES", path
    for path in ("/", "/etc", "/usr", "/sys/class/net", "/proc", "/run", "/dev/shm"):
        assert answers[f"list {path}"] == "EACCES", path


def test_nothing_can_be_written_anywhere(answers: Answers, host: dict[str, list[str]]) -> None:
    for path in host["write"]:
        assert answers[f"write {path}"] in ("EACCES", "EROFS", "ENOENT", "EPERM"), path
    assert answers["fill shares"] in ("ENOSPC", "EROFS")
    for name in ("make directory", "make link", "make node"):
        assert answers[name] in ("EACCES", "EPERM", "EROFS"), name


def test_its_image_stays_as_it_was_given(answers: Answers) -> None:
    assert answers["image again, writable"] in ("EACCES", "EPERM")
    assert answers["image truncated"] == "EINVAL"


def test_nobody_else_can_be_reached(answers: Answers, host: dict[str, list[str]]) -> None:
    for address in host["connect"]:
        assert answers[f"connect {address}"] == ABSENT, address
    assert answers["abstract socket"] in ("ECONNREFUSED", "EPERM")
    for pid in host["kill"]:
        assert answers[f"kill {pid}"] == "ESRCH", pid
    assert answers["parent"] == "0"
    assert answers["ptrace attach"] == "EPERM"


def test_it_has_no_privilege_but_to_serve_files(answers: Answers) -> None:
    status = dict(line.split(":\t", 1) for line in answers["status"].splitlines() if ":\t" in line)
    allowed = capabilities.mask(add=confinement.SHARE_CAPABILITIES, drop=("ALL",))
    assert all(int(status[f"Cap{kind}"], 16) & ~allowed == 0 for kind in ("Prm", "Eff", "Bnd"))
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"


def test_its_system_is_read_only(answers: Answers) -> None:
    rows = [line.split() for line in answers["mounts"].splitlines()]
    written = {row[4] for row in rows if "rw" in row[5].split(",")}
    assert all(path.startswith(("/dev", "/proc", "/shares")) for path in written), written


def test_the_host_says_what_it_has() -> None:
    abi = confinement.landlock_abi()
    assert confinement.fact() == (f"abi {abi}" if abi else "not in this kernel")
    assert {item.name for item in features.check()} >= {"qemu"}
