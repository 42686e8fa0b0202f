"""What an instance uses, by its guest kernel's account: files of its cgroup, read through init."""

from __future__ import annotations

import itertools
import socket
import struct
import time

from proa import plan
from proa.agent import Agent, Attach
from proa.errors import IsolationError, Timeout
from proa.host.cgroup import Usage
from proa.isolation.vm.plans import PLACE_CGROUP

MEMORY = "/proc/meminfo"
RECORD = struct.Struct("<8I2Q")  # docs/protocol.md, "Builtins"
FILES = (
    "memory.current",
    "memory.max",
    "memory.peak",
    "cpu.stat",
    "pids.current",
    "memory.events",
    "io.stat",
)
ANSWER_SECONDS = 10.0
ANSWER_MAXIMUM = 1 << 20
_ids = itertools.count(0x4000_0000)  # out of the way of the engine's own numbers


def usage(agent: Agent) -> Usage:
    """Memory, processor time, processes and blocks moved, of the guest's place."""
    paths = (MEMORY, *(f"{PLACE_CGROUP}/{name}" for name in FILES))
    return parse(dict(zip((MEMORY, *FILES), read(agent, paths), strict=True)))


def freeze(agent: Agent, *, frozen: bool) -> None:
    """Freeze or thaw the guest's place.  Raises Timeout when its processes do not stop."""
    agent.setup((plan.Write(f"{PLACE_CGROUP}/cgroup.freeze", "0644", str(int(frozen))),))
    end = time.monotonic() + ANSWER_SECONDS
    while frozen and "frozen 1" not in read(agent, (f"{PLACE_CGROUP}/cgroup.events",))[0]:
        if time.monotonic() > end:
            raise Timeout("the processes of the vm do not stop")


def parse(content: dict[str, str]) -> Usage:
    """The account in the waist's terms; the guest's memory is the limit when none was asked for."""
    io = [pair.split("=") for pair in content["io.stat"].split() if "=" in pair]
    return Usage(
        memory_bytes=number(content["memory.current"]),
        memory_limit=number(content["memory.max"]) or _memory(content[MEMORY]),
        memory_peak=number(content["memory.peak"]),
        cpu_ns=table(content["cpu.stat"]).get("usage_usec", 0) * 1000,
        pids=number(content["pids.current"]),
        oom_kills=table(content["memory.events"]).get("oom_kill", 0),
        read_bytes=sum(number(value) for name, value in io if name == "rbytes"),
        write_bytes=sum(number(value) for name, value in io if name == "wbytes"),
    )


def number(text: str) -> int:
    """A whole number; 0 for anything else."""
    text = text.strip()
    return int(text) if text.isdigit() else 0


def _memory(meminfo: str) -> int:
    first = meminfo.partition("\n")[0].split()  # MemTotal: 1004288 kB
    return number(first[1]) << 10 if len(first) == 3 and first[0] == "MemTotal:" else 0


def table(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    rows = [line.split() for line in text.splitlines()]
    return {row[0]: number(row[1]) for row in rows if len(row) == 2}


def read(agent: Agent, paths: tuple[str, ...]) -> list[str]:
    """The files' contents, through a builtin that runs beside init."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            number = next(_ids)
            agent.attach(number, theirs.fileno(), Attach.OUT)
            agent.exec(number, (plan.Builtin(("read", *paths)),), flags=0)
        ours.settimeout(ANSWER_SECONDS)
        data = bytearray()
        try:
            while chunk := ours.recv(1 << 16):
                data += chunk
                if len(data) > ANSWER_MAXIMUM:
                    raise IsolationError("the guest's account is too long")
        except OSError as error:
            raise IsolationError("the guest does not give its account") from error
    return [content.decode("utf-8", "replace") for content in records(bytes(data), len(paths))]


def records(data: bytes, count: int) -> list[bytes]:
    """The contents of `count` records.  Raises IsolationError when they are malformed."""
    result: list[bytes] = []
    offset = 0
    for _ in range(count):
        if len(data) - offset < RECORD.size:
            raise IsolationError("the guest's account is cut off")
        path, link, *_, size, _ = RECORD.unpack_from(data, offset)
        start = offset + RECORD.size + path + link
        offset = start + size
        if offset > len(data):
            raise IsolationError("the guest's account is cut off")
        result.append(data[start:offset])
    return result
