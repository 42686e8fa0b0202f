"""What a form shares with the host and with its neighbours, each line by a finding of this run.

Answers are kept beside the probes' under `shared.NAME`: `open` is shared, `closed` is its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proa.compare.isolation import host
from proa.compare.isolation.judging import Case
from proa.compare.record import Answer, Form

PREFIX = "shared."
SAID = {"open": "yes", "partly": "partly", "closed": "no"}


@dataclass(frozen=True)
class Ground:
    """What findings are made of; `pids` are the host's processes of the probe and its neighbour."""

    case: Case
    found: Mapping[str, Answer]
    form: Form
    pids: tuple[int, ...]


def kernel(ground: Ground) -> Answer:
    """By the boot id."""
    return ground.found["kernel.identity"]


def page_cache(ground: Ground) -> Answer:
    """By the trial with a file; machines may still have the same disk's file open on the host."""
    tried, files = ground.found["sight.cache"], _same_files(ground)
    if tried.outcome != "closed" or not ground.case.apart or not files:
        return tried
    words = f"each has its own in its kernel, below it the host keeps {files} once for both"
    return Answer("partly", words, 0.5)


def layers(ground: Ground) -> Answer:
    """By what is open on the host, or by the page of a file that came for both."""
    tried, files = ground.found["sight.cache"], _same_files(ground)
    if ground.case.apart and files:
        return Answer("open", f"both machines have {files} open", 0.0)
    if tried.outcome == "open":
        return Answer("open", "a file of the image is the same pages for both", 0.0)
    return Answer("not tried", tried.evidence or "not found out", 0.0)


def network(ground: Ground) -> Answer:
    """By the kernel, and whether the namespace is the host's."""
    case = ground.case
    inside = case.text("privileges.namespaces", "net")
    if case.apart:
        return Answer("closed", "its own kernel's; frames pass through an emulated card", 1.0)
    if not inside or not case.before.namespaces["net"]:
        return Answer("not tried", "the namespace is not told", 0.0)
    if inside == case.before.namespaces["net"]:
        return Answer("open", f"namespace {inside} is the host's", 0.0)
    return Answer("partly", f"namespace {inside} of the host's kernel is its own", 0.5)


def processor(ground: Ground) -> Answer:
    """By what a neighbour felt; whatever it felt, there are only the host's processors."""
    felt, model = ground.found["exhaustion.cpu"], ground.found["sight.processor"]
    if felt.outcome == "not tried":
        return felt
    seen = "as they are" if model.outcome == "open" else "as another model"
    words = f"the host's processors, shown {seen}; {felt.evidence} meanwhile"
    return Answer("open", words, 0.0)


def memory(ground: Ground) -> Answer:
    """By the size it is told."""
    told = ground.found["sight.memory"]
    if told.outcome != "closed":
        return told
    return Answer("partly", f"a part of the host's, fixed at start: {told.evidence}", 0.5)


def disk(ground: Ground) -> Answer:
    """By whose free space fell."""
    return ground.found["exhaustion.disk"]


def processes(ground: Ground) -> Answer:
    """By the kernel that counts them, and what is seen of others."""
    seen = ground.found["sight.processes"]
    if ground.case.apart:
        return Answer("closed", f"its own kernel's; seen are {seen.evidence}", 1.0)
    if seen.outcome != "closed":
        return seen
    counted = ground.found["sight.activity"].evidence
    return Answer("partly", f"seen are {seen.evidence}; {counted}", 0.5)


def log(ground: Ground) -> Answer:
    """By the kernel, and whether it can be read."""
    found = ground.found["sight.log"]
    if ground.case.apart:
        return Answer("closed", "its own kernel's", 1.0)
    if found.outcome != "closed":
        return found
    return Answer("partly", f"there is one for all, which it may not read: {found.evidence}", 0.5)


def clock(ground: Ground) -> Answer:
    """By the uptime."""
    return ground.found["sight.uptime"]


@dataclass(frozen=True)
class Row:
    """A row of the table: what, how it was found, and the function that finds it."""

    name: str
    what: str
    how: str
    find: Callable[[Ground], Answer]


ROWS = (
    Row("kernel", "kernel", "boot id inside and on the host", kernel),
    Row("page-cache", "page cache", "a page of the image dropped, read by one instance, looked for "
        "by another; files both have open on the host", page_cache),
    Row("layers", "the image's files", "device and inode of open files on the host, or that page",
        layers),
    Row("network", "network stack", "kernel, and number of the network namespace", network),
    Row("processor", "processors", "a neighbour's rate while one takes all", processor),
    Row("memory", "memory", "the size told inside and on the host", memory),
    Row("disk", "disk space", "size of the file system, and whose free space falls", disk),
    Row("processes", "process table", "kernel, process namespace, count of processes started",
        processes),
    Row("log", "kernel log", "kernel, and whether syslog(2) answers", log),
    Row("clock", "time since boot", "/proc/uptime inside and on the host", clock),
)  # fmt: skip


def find(ground: Ground) -> dict[str, Answer]:
    """Every row's answer, under its key."""
    return {PREFIX + row.name: row.find(ground) for row in ROWS}


def _same_files(ground: Ground) -> str:
    """How many files both processes have open, in words; empty for none or when unknown."""
    if len(ground.pids) < 2 or not all(ground.pids):
        return ""
    same = set.intersection(*(host.files(pid) for pid in ground.pids))
    return f"{len(same)} of the same files" if same else ""
