"""Work of known kinds, asked of an instance: one short sample at a time, checked, with its cost.

    with Probe(client, "web", isolation="container") as probe:
        for name, taken in work.each(probe, work.NAMES):
            ...taken.value, work.UNITS[name], taken.overhead

The comparison calls it round by round, form by form.  Amounts are counted inside and times are read
inside, so the way there and back is no part of a sample; network work is counted on this host, by
a load generator, against a server inside.
"""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from proa.compare import answers, readiness
from proa.compare.probe import Probe, program
from proa.compare.record import Measure
from proa.errors import Corrupt, HostError, NotFound, ProaError, Timeout, Unsupported

SAMPLE_MS = 300
SERVE_PORT = 18099
FILE_BYTES = 32 << 20
_SERVE_SECONDS = 10.0
_LOAD_SECONDS = 60.0
_RESIDENT_MAXIMUM = 0.1  # of the file still cached when reading begins
_CLOCK_SLACK = 1.05
_MASK = 2**64 - 1


@dataclass(frozen=True)
class Work:
    """One kind: `words` are what the probe inside is asked, or (network) the load generator here;
    `field` is the answer's figure, times `factor`."""

    title: str
    unit: str
    how: str
    words: tuple[str, ...]
    field: str = "rate"
    factor: float = 1.0
    network: bool = False

    @property
    def better(self) -> str:
        """`higher` for rates, `lower` for times."""
        return "higher" if self.unit.endswith("/s") else "lower"


_FILE = f"on a file of {FILE_BYTES >> 20} MiB of random bytes in the first writable directory"
_DROPPED = (
    "; the instance's own page cache of it is dropped before each pass and seen to be empty by "
    "mincore, the host's cache of a vm's disk is as it is"
)
_LOAD = "asked of a small HTTP server inside, at its own address, by a load generator on this host"

TABLE: dict[str, Work] = {
    "cpu": Work(
        "integer arithmetic", "operations/s",
        "steps of a 64-bit generator (multiply, add), each needing the last; the result is checked",
        ("work", "cpu"),
    ),
    "cpu-float": Work(
        "floating-point arithmetic", "operations/s",
        "steps of x = 0.999999 x + 1, each needing the last; the result is checked",
        ("work", "cpu-float"),
    ),
    "cpu-branches": Work(
        "sorting", "numbers/s",
        "random numbers sorted, 1024 at a time: branches, loads and calls as programs have them",
        ("work", "cpu-branches"),
    ),
    "memory": Work(
        "memory bandwidth", "bytes/s",
        "a[i] = b[i] + c[i] over 48 MiB of 64-bit numbers; each counts once, as STREAM counts them",
        ("work", "memory"),
    ),
    "syscalls": Work(
        "system calls", "calls/s", "getppid, one after the other", ("work", "syscalls")
    ),
    "disk-seq-write": Work(
        "disk, written in order", "bytes/s",
        f"1 MiB blocks {_FILE}, and fdatasync within the time", ("work", "disk-seq-write"),
    ),
    "disk-seq-read": Work(
        "disk, read in order", "bytes/s",
        f"1 MiB blocks {_FILE}{_DROPPED}", ("work", "disk-seq-read"),
    ),
    "disk-rand-read": Work(
        "disk, random reads", "reads/s",
        f"4 KiB blocks {_FILE}, each once, without read-ahead, one at a time{_DROPPED}",
        ("work", "disk-rand-read"),
    ),
    "disk-rand-write": Work(
        "disk, random writes", "writes/s",
        f"4 KiB blocks {_FILE}, each once, and fdatasync within the time",
        ("work", "disk-rand-write"),
    ),
    "fsync": Work(
        "synced writes", "syncs/s",
        f"4 KiB blocks written in place {_FILE}, fdatasync after each", ("work", "fsync"),
    ),
    "net-throughput": Work(
        "network, out of the instance", "bytes/s", f"one stream of bytes, {_LOAD}",
        ("path=/bytes/1000000000000", "connections=1"), "bytes_per_second", network=True,
    ),
    "net-requests": Work(
        "network, requests", "requests/s", f"8 connections kept open, {_LOAD}",
        ("connections=8",), "requests_per_second", network=True,
    ),
    "net-latency-p50": Work(
        "network, median latency", "ms", f"1 connection, a request at a time, {_LOAD}",
        ("connections=1",), "p50_ns", 1e-6, network=True,
    ),
    "net-latency-p99": Work(
        "network, latency of the slowest in 100", "ms",
        f"1 connection, a request at a time, {_LOAD}",
        ("connections=1",), "p99_ns", 1e-6, network=True,
    ),
}  # fmt: skip

NAMES = tuple(TABLE)
TITLES = {name: row.title for name, row in TABLE.items()}
UNITS = {name: row.unit for name, row in TABLE.items()}
HOW = {name: row.how for name, row in TABLE.items()}
BETTER = {name: row.better for name, row in TABLE.items()}


@dataclass(frozen=True)
class Taken:
    """One sample in its work's unit; `overhead` is what measuring took of it, `line` all that the
    probe said."""

    value: float
    overhead: float
    line: answers.Line


def sample(probe: Probe, name: str, ms: int = SAMPLE_MS) -> float:
    """One sample of a work.  Raises Unsupported with the reason when the instance cannot do it."""
    return take(probe, name, ms).value


def take(probe: Probe, name: str, ms: int = SAMPLE_MS) -> Taken:
    """One sample with its overhead.  Raises Unsupported, Corrupt for figures that cannot be."""
    row = _row(name)
    return _figure(row, _run(probe, row, ms))


def each(
    probe: Probe, names: Sequence[str] = NAMES, ms: int = SAMPLE_MS
) -> Iterator[tuple[str, Taken | ProaError]]:
    """A sample of each work, or why there is none; works that differ in what they read of the same
    run (latencies) share it."""
    runs: dict[tuple[str, ...], answers.Line | ProaError] = {}
    for name in names:
        row = _row(name)
        if row.words not in runs:
            try:
                runs[row.words] = _run(probe, row, ms)
            except ProaError as error:
                runs[row.words] = error
        line = runs[row.words]
        try:
            yield name, line if isinstance(line, ProaError) else _figure(row, line)
        except Corrupt as error:
            yield name, error


def measure(name: str, taken: Mapping[str, Sequence[Taken]]) -> Measure:
    """The record of a work's samples by form."""
    row = _row(name)
    costs = [one.overhead for samples in taken.values() for one in samples]
    return Measure(
        key=f"work.{name}",
        group="work",
        title=row.title,
        unit=row.unit,
        better=row.better,
        how=row.how,
        samples={form: tuple(one.value for one in samples) for form, samples in taken.items()},
        overhead=median(costs) if costs else None,
    )


def _row(name: str) -> Work:
    if name not in TABLE:
        raise NotFound(f"no work is called '{name}'", hint=f"there are {', '.join(NAMES)}")
    return TABLE[name]


def _run(probe: Probe, row: Work, ms: int) -> answers.Line:
    if row.network:
        return load(f"{probe.address}:{serve(probe)}", *row.words, ms=ms)
    begin = time.monotonic()
    [line, *_] = probe.ask(*row.words, f"ms={ms}")
    answers.refused(line)
    _check(row, line, ms / 1000, time.monotonic() - begin)
    return line


def _check(row: Work, line: answers.Line, asked_seconds: float, waited_seconds: float) -> None:
    """Raise for an answer that contradicts itself, this host's clock, or arithmetic."""
    seconds, done = answers.number(line, "seconds"), answers.number(line, "done")
    if not 0.9 * asked_seconds <= seconds <= waited_seconds * _CLOCK_SLACK:
        raise Corrupt(f"the probe claims {seconds:.3f} s, this host waited {waited_seconds:.3f} s")
    if abs(answers.number(line, "rate") - done / seconds) > 1e-6 * done / seconds + 1e-6:
        raise Corrupt("the probe's rate is not what it did by the time it took")
    if not PROOFS.get(row.words[1], _believed)(line, done):
        raise Corrupt(f"{row.title}: the probe's result is not that of the work it claims")
    if answers.number({"resident": line.get("resident", 0)}, "resident") > _RESIDENT_MAXIMUM:
        raise Unsupported(f"{row.title}: the file cannot be taken out of the cache")


def steps(count: int) -> int:
    """The generator's value after `count` steps from 1, by doubling."""
    multiply, add = 6364136223846793005, 1442695040888963407
    total_multiply, total_add = 1, 0
    while count:
        if count & 1:
            total_multiply = total_multiply * multiply & _MASK
            total_add = (total_add * multiply + add) & _MASK
        add = (multiply + 1) * add & _MASK
        multiply = multiply * multiply & _MASK
        count >>= 1
    return (total_multiply + total_add) & _MASK


def _believed(line: answers.Line, done: float) -> bool:
    return True


def _cpu(line: answers.Line, done: float) -> bool:
    return answers.text(line, "result") == str(steps(int(done)))


def _cpu_float(line: answers.Line, done: float) -> bool:
    expected = -math.expm1(done * math.log(0.999999)) * 1e6
    return math.isclose(answers.number(line, "result"), expected, rel_tol=1e-6)


def _cpu_branches(line: answers.Line, done: float) -> bool:
    return answers.number(line, "disorder") == 0


def _fsync(line: answers.Line, done: float) -> bool:
    return answers.number(line, "syncs") == done


PROOFS: dict[str, Callable[[answers.Line, float], bool]] = {
    "cpu": _cpu,
    "cpu-float": _cpu_float,
    "cpu-branches": _cpu_branches,
    "fsync": _fsync,
}


def _figure(row: Work, line: answers.Line) -> Taken:
    value = answers.number(line, row.field) * row.factor
    seconds = max(answers.number(line, "seconds"), 1e-9)
    cost = answers.number(line, "overhead_seconds")
    if row.better == "higher":
        return Taken(value, value * cost / seconds, line)
    return Taken(value, cost / max(answers.number(line, "count"), 1) * 1000, line)


def serve(probe: Probe) -> int:
    """The port of the small server inside, which is started at the first call.

    Raises Unsupported, and at once when it did before, when nothing reaches it.
    """
    if probe.serving is None:
        try:
            probe.begin("serve", f"port={SERVE_PORT}")
            readiness.port_open(probe.address, SERVE_PORT, _SERVE_SECONDS)
            probe.serving = SERVE_PORT
        except Timeout as error:
            probe.serving = Unsupported(f"a server inside is not reached: {error.message}")
        except ProaError as error:
            probe.serving = error
    if isinstance(probe.serving, ProaError):
        raise probe.serving
    return probe.serving


def load(target: str, *words: str, ms: int = SAMPLE_MS) -> answers.Line:
    """Requests to an HTTP server at `address:port`, by this host's generator; its answer.

    Raises Unsupported when the server takes none, HostError when the generator fails.
    """
    command = [str(program()), "load", target, *words, f"ms={ms}"]
    try:
        done = subprocess.run(
            command, capture_output=True, timeout=_LOAD_SECONDS + ms / 1000, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"the load generator failed: {error}") from error
    lines = answers.read(done.stdout)
    if not lines:
        raise HostError(f"the load generator said '{done.stderr.decode(errors='replace').strip()}'")
    answers.refused(lines[0])
    if answers.number(lines[0], "requests_per_second") + answers.number(lines[0], "bad") == 0:
        if answers.number(lines[0], "bytes_per_second") == 0:
            raise Unsupported(f"'{target}' gave no answer to any request")
    elif answers.number(lines[0], "bad") > 0:
        raise Unsupported(f"'{target}' answered requests with errors")
    return lines[0]
