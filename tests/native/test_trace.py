"""`proa-probe trace`: the calls a program makes, as strace sees them; its end, and no leftovers."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import PROBER

Lines = list[dict[str, Any]]


def trace(*words: str) -> Lines:
    done = subprocess.run([PROBER, "trace", *words], capture_output=True, timeout=60, check=True)
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def end(lines: Lines) -> dict[str, Any]:
    return next(line for line in lines if "end" in line)


@pytest.mark.parametrize("script", ["ls -l /", "(echo a | cat); wait", "ls /not-there; exit 3"])
def test_the_calls_strace_sees(
    script: str, tmp_path: Path, require_program: Callable[[str], str]
) -> None:
    told = tmp_path / "strace"
    strace = [require_program("strace"), "-f", "-qq", "-o", str(told)]
    subprocess.run([*strace, "sh", "-c", script], capture_output=True, check=False)
    expected = set(re.findall(r"^\d+ +(\w+)\(", told.read_text(), re.MULTILINE))
    lines = trace("--", "sh", "-c", script)
    calls = {line["call"] for line in lines if "call" in line}
    assert calls | {"execve"} == expected | {"execve"}, "the first one is ours"


def test_counts_errors_and_what_was_said() -> None:
    script = "for n in 1 2 3; do umount /not-there-$n 2>/dev/null; done; echo over"
    lines = trace("--", "sh", "-c", script)
    [umount] = [line for line in lines if line.get("call") == "umount2"]
    assert umount["count"] == 3
    assert set(umount["errors"].split()) <= {"ENOENT", "EPERM"}
    assert [line["said"] for line in lines if "said" in line] == ["over\n"]
    assert (end(lines)["end"], end(lines)["code"]) == ("exit", 0)
    assert end(lines)["kernel"] == os.uname().release


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sh", "-c", "kill -SEGV $$"), ("signal", 11)),
        (("sh", "-c", "exit 5"), ("exit", 5)),
        (("/not/there",), ("exit", 127)),
        (("sleep", "60"), ("time", 0)),
        (("yes",), ("time", 0)),
    ],
)
def test_ends(words: tuple[str, ...], expected: tuple[str, int]) -> None:
    lines = trace("seconds=1", "--", *words)
    assert (end(lines)["end"], end(lines)["code"]) == expected


def test_a_server_is_left_when_it_listens() -> None:
    serve = "import socket; s = socket.create_server(('127.0.0.1', 0)); s.accept()"
    lines = trace("seconds=50", "until=listen", "--", "/usr/bin/python3", "-IS", "-c", serve)
    assert end(lines)["listening"]
    assert end(lines)["end"] == "time"
    assert {line["socket"] for line in lines if "socket" in line} >= {2}


def test_nothing_is_left_running(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    trace("seconds=1", "--", "sh", "-c", f"setsid sh -c 'sleep 60' 3>{pipe} & sleep 60")
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b"", "who could have written is gone"
    os.close(reader)


def test_wrong_usage() -> None:
    for words in ((), ("--",), ("seconds=0", "--", "true"), ("colour=red", "--", "true")):
        done = subprocess.run([PROBER, "trace", *words], capture_output=True, timeout=10)
        assert done.returncode == 2
