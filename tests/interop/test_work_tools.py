"""Our figures against those of tools nobody here wrote: same machine, same files, same servers.

Both are taken in turns until the median of the ratios agrees, of three pairs at least: what
disturbs a machine for a second cannot fail the test, and a figure that is wrong stays wrong.
Tolerances (decision 026): a tenth for processor time, a quarter for system calls and requests, half
for disks, whose own speed changes that much between one run and the next, and a factor of two for
random writes: one of 4 KiB into memory takes no longer than what fio does around it.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from proa.client import Client
from proa.compare import answers, work
from proa.compare.probe import Probe, program
from tests.conftest import ISOLATIONS
from tests.support.engine import EngineProcess

Figure = Callable[[], float]
Program = Callable[[str], str]

PAIRS_MAXIMUM = 13
DISK_TOLERANCE, RANDOM_WRITE_TOLERANCE = 0.5, 1.0


def agree(ours: Figure, theirs: Figure, tolerance: float) -> None:
    """Interleaved samples until the median of their ratios agrees; fails when 13 pairs do not."""
    pairs: list[tuple[float, float]] = []
    ratio = 0.0
    while len(pairs) < PAIRS_MAXIMUM:
        pairs.append((ours(), theirs()))
        ratio = median(one / other for one, other in pairs)
        if len(pairs) >= 3 and 1 / (1 + tolerance) <= ratio <= 1 + tolerance:
            return
    pytest.fail(f"ours is {ratio:.2f} of theirs, (ours, theirs): {pairs}")


def output(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def ask(*words: str) -> answers.Line:
    done = subprocess.run([program(), *words], capture_output=True, timeout=60, check=True)
    return answers.read(done.stdout)[0]


# -- processor and system calls --------------------------------------------------------------------


def test_processor_time_is_what_perf_counts(require_program: Program) -> None:
    """Of one and the same run, so that both lose the same to whatever else runs."""
    perf = require_program("perf")
    command: list[str | Path] = [perf, "stat", "-x,", "-e", "task-clock"]
    counted_ms: list[float] = []

    def ours() -> float:
        words = [*command, program(), "work", "cpu", "ms=200"]
        done = subprocess.run(words, capture_output=True, timeout=60, check=True)
        counted_ms.append(float(done.stderr.decode().split(",")[0]))
        return float(answers.read(done.stdout)[0]["cpu_seconds"]) * 1000

    agree(ours, lambda: counted_ms[-1], 0.1)


def test_system_calls_are_as_fast_as_perf_finds_them(require_program: Program) -> None:
    perf = require_program("perf")

    def theirs() -> float:
        found = re.search(
            r"([0-9]+) ops/sec", output(perf, "bench", "syscall", "basic", "-l", "2000000")
        )
        assert found
        return float(found[1])

    agree(lambda: float(ask("work", "syscalls", "ms=100")["rate"]), theirs, 0.25)


def test_calls_are_made_as_often_as_said(require_program: Program, tmp_path: Path) -> None:
    """strace counts them: each write its sync, each read its block, nothing else."""
    strace = require_program("strace")

    def counted(*words: str) -> tuple[answers.Line, dict[str, int]]:
        table = tmp_path / "table"
        calls = "fdatasync,pread64,pwrite64,getppid"
        done = subprocess.run(
            [strace, "-f", "-c", "-o", table, "-e", f"trace={calls}", program(), "work", *words],
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        rows = [row.split() for row in table.read_text().splitlines()]
        return answers.read(done.stdout)[0], {
            row[-1]: int(row[3])
            for row in rows
            if len(row) > 4 and row[3].isdigit() and row[-1] != "total"
        }

    where = f"dir={tmp_path}"
    filled = 4  # blocks of a file of 4 MiB, and one sync
    line, calls = counted("fsync", "ms=50", "size=4m", where)
    assert calls["fdatasync"] == line["done"] + 1
    assert calls["pwrite64"] == line["done"] + filled
    line, calls = counted("disk-rand-read", "ms=50", "size=4m", where)
    assert calls == {"pread64": line["done"], "pwrite64": filled, "fdatasync": 1}
    line, calls = counted("syscalls", "ms=50")
    assert calls == {"getppid": line["done"]}


def test_a_slow_disk_is_as_slow_as_it_is(require_program: Program, tmp_path: Path) -> None:
    """strace makes every sync wait 10 ms more: each takes that, and at most half again."""
    strace = require_program("strace")
    words = ["work", "fsync", "ms=300", "size=1m", f"dir={tmp_path}"]
    inject = [strace, "-f", "-o", "/dev/null", "-e", "trace=fdatasync", "-e"]
    plain = ask(*words)
    done = subprocess.run(
        [*inject, "inject=fdatasync:delay_enter=10000", program(), *words],
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    slow = answers.read(done.stdout)[0]
    added_ms = (slow["p50_ns"] - plain["p50_ns"]) / 1e6
    assert 0.9 * 10 <= added_ms <= 1.5 * 10
    assert slow["rate"] <= 100


# -- disks -----------------------------------------------------------------------------------------

# Writes into memory take fio longer than us unless it neither makes up data nor reads two clocks
# for each; the last sync of a file is left out of its time, so there is none.
FIO: dict[str, tuple[str, tuple[str, ...]]] = {
    "disk-seq-write": ("write", ("--rw=write", "--bs=1m", "--fdatasync=31", "--loops=4")),
    "disk-seq-read": ("read", ("--rw=read", "--bs=1m", "--invalidate=1")),
    "disk-rand-write": (
        "write", ("--rw=randwrite", "--bs=4k", "--fdatasync=8191", "--overwrite=1", "--loops=4",
                  *("--invalidate=0", "--gtod_reduce=1", "--scramble_buffers=0")),
    ),
    "disk-rand-read": ("read", ("--rw=randread", "--bs=4k", "--runtime=150ms")),
    "fsync": ("write", ("--rw=write", "--bs=4k", "--fdatasync=1", "--overwrite=1",
                        "--runtime=150ms")),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FIO))
def test_disks_are_as_fast_as_fio_finds_them(
    name: str, require_program: Program, tmp_path: Path
) -> None:
    """Same file system, file size and block size, one at a time, caches dropped, syncs timed."""
    fio = require_program("fio")
    direction, options = FIO[name]
    common = ("--name=x", "--size=32m", "--ioengine=psync", "--fallocate=none", "--unlink=1",
              "--output-format=json", f"--directory={tmp_path}")  # fmt: skip

    def theirs() -> float:
        text = output(fio, *common, *options)
        found: dict[str, Any] = json.loads(text[text.index("{") :])["jobs"][0][direction]
        return float(found["io_bytes"] / (found["runtime"] / 1000))

    def ours() -> float:
        line = ask("work", name, "ms=150", f"dir={tmp_path}")
        return float(line["done"] * (line["block"] if line["unit"] == "blocks" else 1)) / float(
            line["seconds"]
        )

    agree(ours, theirs, RANDOM_WRITE_TOLERANCE if name == "disk-rand-write" else DISK_TOLERANCE)


# -- requests, in both forms -----------------------------------------------------------------------


@pytest.fixture(scope="module", params=ISOLATIONS)
def probe(request: pytest.FixtureRequest, session_engine: EngineProcess) -> Iterator[Probe]:
    client = Client(f"unix://{session_engine.socket}")
    with client, Probe(client, "probe", isolation=str(request.param)) as made:
        yield made


def test_requests_are_as_many_as_wrk_counts(probe: Probe, require_program: Program) -> None:
    wrk = require_program("wrk")
    url = f"http://{probe.address}:{work.serve(probe)}/"

    def theirs() -> float:
        found = re.search(r"Requests/sec: +([0-9.]+)", output(wrk, "-t1", "-c8", "-d1", url))
        assert found
        return float(found[1])

    agree(lambda: work.sample(probe, "net-requests"), theirs, 0.25)


def test_requests_are_as_slow_as_ab_finds_them(probe: Probe, require_program: Program) -> None:
    """One connection, one request after the other: ab's time per request, our mean."""
    ab = require_program("ab")
    url = f"http://{probe.address}:{work.serve(probe)}/"

    def theirs() -> float:
        text = output(ab, "-q", "-k", "-c1", "-n500", url)
        found = re.search(r"Time per request: +([0-9.]+) \[ms\] \(mean\)", text)
        assert found
        return float(found[1])

    def ours() -> float:
        return float(work.take(probe, "net-latency-p50").line["mean_ns"]) / 1e6

    agree(ours, theirs, 0.25)


# -- memory ----------------------------------------------------------------------------------------


def test_a_hog_is_as_large_as_smem_finds_it(
    session_engine: EngineProcess, require_program: Program
) -> None:
    """Unique memory of a container's process: smem's, and the private memory we tell for it."""
    smem = require_program("smem")
    with (
        Client(f"unix://{session_engine.socket}") as client,
        Probe(client, "probe", isolation="container") as probe,
    ):
        small = probe.instance.memory().private_bytes
        probe.begin("hold", f"memory={64 << 20}")

        def theirs() -> float:
            text = output(smem, "-H", "-c", "uss command", "-P", "proa-probe hold memory=67108864")
            return float(max(int(row.split()[0]) for row in text.splitlines())) * 1024

        agree(lambda: float(probe.instance.memory().private_bytes - small), theirs, 0.05)
