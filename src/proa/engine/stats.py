"""What an instance uses (`stats`), and its processes (`top`), by its own kernel's account."""

from __future__ import annotations

import itertools
import os
import pwd
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proa.engine import links
from proa.engine.core import Core
from proa.engine.execs import run_builtin
from proa.engine.instance import Instance
from proa.errors import Conflict, Invalid
from proa.isolation.base import Running

TICKS = os.sysconf("SC_CLK_TCK")
OUTPUT_MAXIMUM = 16 << 20


@dataclass(frozen=True)
class Stats:
    """One reading; bytes, nanoseconds and counts.  `networks` maps an interface to rx bytes, rx
    packets, tx bytes, tx packets as the instance counts them."""

    read_ns: int
    memory_bytes: int
    memory_peak: int
    memory_limit: int
    cpu_ns: int
    system_cpu_ns: int
    online_cpus: int
    pids: int
    read_bytes: int
    write_bytes: int
    networks: Mapping[str, tuple[int, int, int, int]]


def stats(core: Core, instance: Instance) -> Stats:
    """A reading of now.  Raises Conflict unless it runs."""
    running = instance.held
    if running is None:
        raise Conflict(f"Container {instance.id} is not running")
    used = instance.standby.reading(running, "inside", running.inside)
    return Stats(
        read_ns=time.time_ns(),
        memory_bytes=used.memory_bytes - used.memory_inactive_bytes,
        memory_peak=used.memory_peak,
        memory_limit=used.memory_limit or _host_memory(),
        cpu_ns=used.cpu_ns, system_cpu_ns=_system_cpu_ns(), online_cpus=_processors(running),
        pids=used.pids, read_bytes=used.read_bytes, write_bytes=used.write_bytes,
        networks=_networks(core, instance),
    )  # fmt: skip


def _networks(core: Core, instance: Instance) -> dict[str, tuple[int, int, int, int]]:
    """Counters of the host's ends, with directions turned round."""
    found = {}
    for network, link in links.present(core, instance).items():
        counters = links.service(core, network).counters(instance.id)
        if counters is not None:
            found[link.name] = counters
    return found


def _processors(running: Running) -> int:
    return int(running.facts.get("vcpus", os.cpu_count() or 1))


def _running(instance: Instance) -> Running:
    running = instance.running
    if running is None:
        raise Conflict(f"Container {instance.id} is not running")
    return running


def _host_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _system_cpu_ns() -> int:
    with open("/proc/stat", encoding="ascii") as file:
        numbers = file.readline().split()[1:9]
    return sum(map(int, numbers)) * (1_000_000_000 // TICKS)


# -- top --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One process as `procs` prints it; times in clock ticks since boot or spent."""

    pid: int
    ppid: int
    uid: int
    state: str
    tty: int
    start: int
    user: int
    system: int
    vsize: int
    rss_pages: int
    command: str

    @property
    def time(self) -> str:
        """CPU time as ps prints it."""
        seconds = (self.user + self.system) // TICKS
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


COLUMNS: dict[str, Any] = {
    "PID": lambda row, now: str(row.pid),
    "PPID": lambda row, now: str(row.ppid),
    "UID": lambda row, now: _user_name(row.uid),
    "USER": lambda row, now: _user_name(row.uid),
    "C": lambda row, now: "0",
    "STIME": lambda row, now: time.strftime("%H:%M", time.localtime(now)),
    "TTY": lambda row, now: f"pts/{row.tty & 0xFF}" if row.tty else "?",
    "TIME": lambda row, now: row.time,
    "CMD": lambda row, now: row.command,
    "COMMAND": lambda row, now: row.command,
    "STAT": lambda row, now: row.state,
    "S": lambda row, now: row.state,
    "VSZ": lambda row, now: str(row.vsize // 1024),
    "RSS": lambda row, now: str(row.rss_pages * 4),
    "ARGS": lambda row, now: row.command,
    "COMM": lambda row, now: os.path.basename(row.command.split(" ")[0]),
}
DEFAULT_COLUMNS = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
AUX_COLUMNS = ("USER", "PID", "VSZ", "RSS", "TTY", "STAT", "TIME", "COMMAND")


def top(core: Core, instance: Instance, ps_args: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows; understands `-ef`, `aux` and `-o a,b,c`.

    The image's own ps is never run (CVE-2022-1227): init reads its /proc.
    """
    columns = _columns(ps_args.split())
    connection = run_builtin(core, instance, _running(instance), ("procs",))
    with connection, connection.makefile("rb") as stream:
        text = stream.read(OUTPUT_MAXIMUM).decode("utf-8", "replace")
    rows = [_row(line) for line in text.splitlines() if line]
    now = time.time()
    return list(columns), [[COLUMNS[name](row, now) for name in columns] for row in rows]


def _columns(arguments: list[str]) -> tuple[str, ...]:
    if arguments and arguments[0] in ("aux", "-aux"):
        return AUX_COLUMNS
    for option, value in itertools.pairwise(arguments):
        if option in ("-o", "-eo", "o"):
            names = tuple(name.strip().upper() for name in value.split(","))
            unknown = [name for name in names if name not in COLUMNS]
            if unknown:
                raise Invalid(f"unknown ps column '{unknown[0].lower()}'")
            return names
    return DEFAULT_COLUMNS


def _row(line: str) -> Row:
    fields, _, command = line.partition("\t")
    pid, ppid, uid, state, *numbers = fields.split()
    tty, start, user, system, vsize, rss = map(int, numbers)
    return Row(int(pid), int(ppid), int(uid), state, tty, start, user, system, vsize, rss, command)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
