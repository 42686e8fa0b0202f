"""What concerns a machine with its own system, as far as it is pure: plans, account, seed."""

from __future__ import annotations

import pytest

from proa import compile, plan
from proa.engine import hardware
from proa.engine.ssh import _host_key
from proa.errors import Invalid
from proa.isolation.vm.whole import account, seed
from proa.spec import Hardware, Process, Spec

MACHINE = Spec("", "vm", Process(()), "name", hardware=Hardware(disk="/disk.qcow2"))
PLACE = Spec("image", "vm", Process(()), "name")
CONTENT = {
    "/proc/meminfo": "MemTotal:   1000 kB\nMemFree:  100 kB\nMemAvailable:   400 kB\n",
    "/proc/stat": "cpu  10 1 20 900 50 3 4 2 0 0\ncpu0 10 1 20 900 50 3 4 2 0 0\n",
    "/proc/loadavg": "0.10 0.20 0.30 2/123 4567\n",
    "/proc/vmstat": "nr_free_pages 5\noom_kill 2\n",
    "/proc/diskstats": (
        " 254 0 vda 10 0 100 1 20 0 200 1 0 0 0\n"
        " 254 1 vda1 10 0 90 1 20 0 190 1 0 0 0\n"
        " 11 0 sr0 1 0 8 1 0 0 0 0 0 0 0\n"
        " 259 0 nvme0n1 1 0 1 1 1 0 2 1 0 0 0\n"
    ),
}


def test_the_account_of_a_system() -> None:
    used = account.parse(CONTENT)
    assert (used.memory_bytes, used.memory_limit) == (600 << 10, 1000 << 10)
    assert used.cpu_ns == 40 * account.TICK_NS and used.pids == 123 and used.oom_kills == 2
    assert (used.read_bytes, used.write_bytes) == (101 * 512, 202 * 512)


def test_a_system_that_tells_nonsense_has_an_account_of_nothing() -> None:
    used = account.parse(dict.fromkeys(CONTENT, "\x00 x : -1 1e9\nMemTotal: lots\n"))
    assert used.memory_bytes == used.cpu_ns == used.pids == used.read_bytes == 0


def test_a_command_in_a_system_of_its_own_keeps_all_its_rights() -> None:
    process = Process(("id",), user="someone", directory="/srv", terminal=True)
    kinds = {type(step) for step in compile.exec_plan(MACHINE, process)}
    confining = {plan.Capabilities, plan.NoNewPrivileges, plan.Seccomp, plan.Rlimit}
    assert not kinds & confining and {plan.User, plan.Terminal, plan.WorkDirectory} <= kinds
    assert confining - {plan.Rlimit} <= {type(step) for step in compile.exec_plan(PLACE, process)}


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (Hardware(disk="/x"), True),
        (Hardware(disk="/x", cloud_init="#cloud-config\n"), True),
        (Hardware(disk="/x", cloud_init="none"), False),
        (Hardware(disk="empty", boot="cdrom"), False),
        (Hardware(disk="empty", boot="cdrom", cloud_init="#cloud-config\n"), True),
    ],
)
def test_which_machines_get_a_seed(asked: Hardware, wanted: bool) -> None:
    assert seed.wanted(asked) is wanted


@pytest.mark.parametrize(
    "told",
    [{"CloudInit": "none", "CloudInitNetwork": "version: 2"}, {"CloudInit": "x" * (2 << 20)}],
)
def test_what_no_seed_can_hold_is_refused(told: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        hardware.parse({"Proa": told})


@pytest.mark.parametrize(
    ("told", "line"),
    [
        ("ssh-ed25519 AAAA root@host\n", "10.0.0.2 ssh-ed25519 AAAA\n"),
        ("ecdsa-sha2-nistp256 BBBB", "10.0.0.2 ecdsa-sha2-nistp256 BBBB\n"),
        ("", ""),
        ("* ssh-rsa CCCC", ""),
        ("@cert-authority x y", ""),
        ("ssh-rsa", ""),
    ],
)
def test_a_machine_can_only_tell_its_own_keys(told: str, line: str) -> None:
    assert _host_key("10.0.0.2", told) == line
