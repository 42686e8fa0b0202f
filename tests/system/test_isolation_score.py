"""The isolation probes in real instances: both forms, and containers that were weakened."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proa.client import Client
from proa.compare import isolation
from proa.compare.isolation import host, trials
from proa.compare.isolation.gathering import PAIRS, main_process
from proa.compare.probe import Probe, program
from proa.compare.record import Answer, Form
from tests.support.engine import EngineProcess

Answers = dict[str, Answer]


@pytest.fixture(scope="module")
def client(session_engine: EngineProcess) -> Iterator[Client]:
    """A client of the shared engine."""
    with Client(f"unix://{session_engine.socket}") as made:
        yield made


@contextlib.contextmanager
def probe(client: Client, form: str, **more: Any) -> Iterator[Probe]:
    """An instance of the image with a shell, with keys of HostConfig."""
    with Probe(client, "busy", isolation=form, more=more) as made:
        yield made


def gathered(client: Client, form: str, **more: Any) -> Answers:
    """Answers of one that is alone."""
    with probe(client, form, **more) as alone:
        return isolation.gather(alone, None, Form(form, form, form))


@pytest.fixture(scope="module")
def container(client: Client) -> Answers:
    """What a container as it is answers."""
    return gathered(client, "container")


@pytest.fixture(scope="module")
def vm(client: Client) -> Answers:
    """What a vm answers."""
    return gathered(client, "vm")


def worse(answers: Answers, than: Answers) -> set[str]:
    """Keys whose score fell; that none rose is asserted."""
    better = {key for key in than if answers[key].score > than[key].score}
    assert not better
    return {key for key in than if answers[key].score < than[key].score and "shared." not in key}


def test_everything_is_tried_in_both_forms(container: Answers, vm: Answers) -> None:
    """But for what takes a neighbour; every answer has evidence."""
    for found in (container, vm):
        left = {key for key, answer in found.items() if answer.outcome == "not tried"}
        assert {key for key in left if "shared." not in key} == set(PAIRS)
        assert all(answer.evidence for answer in found.values())


def test_a_vm_answers_from_a_kernel_of_its_own(container: Answers, vm: Answers) -> None:
    """By boot id; so no call reaches the host's, and the score says so."""
    assert container["kernel.identity"].outcome == "open"
    assert vm["kernel.identity"].outcome == "closed"
    assert 0 < container["kernel.calls"].score < 0.5
    assert vm["kernel.calls"].score == 1.0
    scores = isolation.judge({"container": container, "vm": vm}).scores
    assert scores["vm"]["host kernel"] == 100.0
    assert scores["container"]["host kernel"] < 60
    assert scores["vm"]["devices"] < scores["container"]["devices"]  # it has emulated ones
    assert container["shared.kernel"].outcome == "open"
    assert vm["shared.kernel"].outcome == "closed"


def test_a_container_sees_the_hosts_figures(container: Answers, vm: Answers) -> None:
    """Memory, uptime and disks are the host's in a container, other ones in a vm."""
    for key in ("sight.memory", "sight.uptime", "sight.activity", "sight.command-line"):
        assert container[key].outcome == "open", key
        assert vm[key].outcome == "closed", key


@pytest.mark.parametrize("form", ["container", "vm"])
def test_the_same_form_gives_the_same_answers(
    client: Client, form: str, container: Answers, vm: Answers
) -> None:
    """Another instance of it: the same outcomes and scores."""
    again = gathered(client, form)
    first = {"container": container, "vm": vm}[form]
    assert {key: (a.outcome, a.score) for key, a in again.items()} == {
        key: (a.outcome, a.score) for key, a in first.items()
    }


def test_without_a_filter(client: Client, container: Answers) -> None:
    """Every call gets through, and what only the filter kept away is open; nothing else changed."""
    found = gathered(client, "container", SecurityOpt=["seccomp=unconfined"])
    assert worse(found, container) >= {
        "kernel.calls", "kernel.compat", "kernel.process", "privileges.filter",
        "privileges.userns", "escapes.release-agent", "escapes.fsconfig", "escapes.overlay",
        "escapes.netfilter", "escapes.keys", "escapes.userfault",
    }  # fmt: skip
    assert worse(found, container) <= {
        "kernel.calls", "kernel.compat", "kernel.process", "privileges.filter",
        "privileges.userns", "escapes.release-agent", "escapes.fsconfig", "escapes.overlay",
        "escapes.netfilter", "escapes.keys", "escapes.userfault", "escapes.perf",
        "escapes.uring", "escapes.bpf", "escapes.handles",
    }  # fmt: skip
    assert found["kernel.calls"].score == 0.0


@pytest.mark.parametrize(
    ("more", "lines"),
    [
        (
            {"CapAdd": ["SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN"]},
            {"privileges.effective", "privileges.bounding", "escapes.netfilter"},
        ),
        (
            {"SecurityOpt": ["no-new-privileges=false"]},
            {"privileges.no-new", "kernel.process"},
        ),
    ],
)
def test_what_is_weakened_is_what_gets_worse(
    client: Client, container: Answers, more: dict[str, Any], lines: set[str]
) -> None:
    """Those lines and no other."""
    assert worse(gathered(client, "container", **more), container) == lines


@pytest.mark.parametrize("form", ["container", "vm"])
def test_a_hosts_directory_with_an_engines_socket(
    client: Client, tmp_path: Path, form: str, container: Answers, vm: Answers
) -> None:
    """Is found where it is mounted; in a container its path is told, too."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        tmp_path.chmod(0o777)
        found = gathered(client, form, Binds=[f"{tmp_path}:/run"])
    expected = {"privileges.shares", "escapes.engine-socket"}
    if form == "container":
        expected.add("sight.mounts")
    assert worse(found, {"container": container, "vm": vm}[form]) == expected


def both_ways(one: Probe, other: Probe) -> tuple[bool | None, bool | None]:
    """Whether a page came with the other's reading: by mincore, and by the time it takes."""
    [found] = one.ask("isolation", "do", "find")
    word = f"path={found['path']}"
    return trials.by_mincore((one, other), word), trials.by_time((one, other), word)


def test_a_page_read_by_one_container_is_in_the_memory_of_the_other(client: Client) -> None:
    """And its disk is the host's, its name on the network answers, its processes are bounded."""
    limits = dict(trials.LIMITS)
    with probe(client, "container", **limits) as one, probe(client, "container", **limits) as other:
        assert trials.cache(one, other).outcome == "open"
        assert both_ways(one, other) == (True, True)
        assert trials.reach(one, other).outcome == "open"
        hogs = {hog.step: hog for hog in trials.HOGS}
        assert trials.exhaust(one, other, hogs["disk"]).outcome == "open"
        assert "limit met at" in trials.exhaust(one, other, hogs["processes"]).evidence


def test_a_page_read_by_one_vm_is_not(client: Client) -> None:
    """Each has a page cache and a disk of its own; below, the host has the same files open."""
    with probe(client, "vm") as one, probe(client, "vm") as other:
        assert trials.cache(one, other).outcome == "closed"
        assert both_ways(one, other) == (False, False)
        hog = next(hog for hog in trials.HOGS if hog.step == "disk")
        assert "a file system of its own" in trials.exhaust(one, other, hog).evidence
        disks = [host.files(main_process(one)), host.files(main_process(other))]
        assert disks[0] & disks[1]


def counted(denied: int) -> dict[str, Any]:
    """The probe's count on this host below a filter that refuses that many calls from 424 on."""
    script = """
import ctypes, os, struct, sys
first, last = 424, 424 + int(sys.argv[1])
row = lambda code, jt, jf, k: struct.pack("HBBI", code, jt, jf, k)
code = row(0x20, 0, 0, 0) + row(0x35, 0, 2, first) + row(0x35, 1, 0, last)
code += row(0x06, 0, 0, 0x00050001) + row(0x06, 0, 0, 0x7FFF0000)
kept = ctypes.create_string_buffer(code)
program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(kept))
libc = ctypes.CDLL(None, use_errno=True)
if int(sys.argv[1]):
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
os.execv(sys.argv[2], [sys.argv[2], "isolation", "kernel.calls"])
"""
    words = [sys.executable, "-c", script, str(denied), str(program())]
    done = subprocess.run(words, capture_output=True, check=True, timeout=20, text=True)
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("denied", [1, 10])
def test_the_count_of_calls_is_exact(denied: int) -> None:
    """A filter somebody else set is counted call by call, without one of them being made."""
    plain, filtered = counted(0), counted(denied)
    assert plain["through"] == plain["all"]
    assert int(filtered["all"]) - int(filtered["through"]) == denied


def settings() -> dict[str, str]:
    """Of this host, what escapes would change."""
    names = ("kernel/core_pattern", "kernel/modprobe", "kernel/hostname", "vm/overcommit_memory")
    paths = [Path("/proc/sys") / name for name in names]
    paths += [Path("/proc/modules"), Path("/sys/kernel/kexec_loaded"), Path("/proc/mounts")]
    return {str(path): path.read_text() for path in paths if path.exists()}


def test_asking_changes_nothing_of_the_host(client: Client) -> None:
    """Not even from a container with every capability and no filter."""
    before = settings()
    gathered(client, "container", SecurityOpt=["seccomp=unconfined"], CapAdd=["ALL"])
    assert settings() == before
