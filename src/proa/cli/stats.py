"""What instances use, once or again and again."""

from __future__ import annotations

import sys
import time

from proa.cli import format, session
from proa.cli.format import Column
from proa.cli.options import Values
from proa.client.connection import Connection, instance_path
from proa.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROUND_SECONDS = 1.0
_CLEAR = "\033[2J\033[H"

_COLUMNS = (
    Column("CONTAINER ID", "ID"), Column("NAME", "Name"), Column("CPU %", "CPUPerc"),
    Column("MEM USAGE / LIMIT", "MemUsage"), Column("MEM %", "MemPerc"),
    Column("NET I/O", "NetIO"), Column("BLOCK I/O", "BlockIO"), Column("PIDS", "PIDs"),
)  # fmt: skip


def show(values: Values, references: list[str]) -> int:
    """Print rounds of samples until interrupted, or one with --no-stream."""
    clear = sys.stdout.isatty() and not values.no_stream
    connections: list[Connection] = []
    previous: dict[str, dict[str, Any]] = {}
    while True:
        began = time.monotonic()
        wanted = references or _running(values.all)
        samples = _sample(wanted, connections, strict=bool(references))
        rows = [_row(sample, previous.get(sample["id"]), values.no_trunc) for sample in samples]
        previous = {sample["id"]: sample for sample in samples}
        text = format.listing(rows, _COLUMNS, values.format)
        sys.stdout.write(_CLEAR + text if clear else text)
        sys.stdout.flush()
        if values.no_stream:
            return 0
        time.sleep(max(0.0, ROUND_SECONDS - (time.monotonic() - began)))


def _running(everything: bool) -> list[str]:
    return [str(item["Id"]) for item in session.get("/containers/json", all=everything)]


def _sample(
    references: list[str], connections: list[Connection], *, strict: bool
) -> list[dict[str, Any]]:
    """One sample of each, all asked for before the first is awaited: the engine takes its time."""
    while len(connections) < len(references):
        connections.append(session.connect())
    pairs = list(zip(references, connections, strict=False))
    for reference, connection in pairs:
        connection.begin("GET", instance_path(reference, "/stats?stream=false"))
    samples = []
    for reference, connection in pairs:
        try:
            sample = connection.finish().json()
        except NotFound:
            if strict:
                raise
            continue  # gone since it was listed
        sample.setdefault("id", reference)
        samples.append(sample)
    return samples


def _row(sample: dict[str, Any], previous: dict[str, Any] | None, full: bool) -> format.Row:
    memory = sample.get("memory_stats") or {}
    used, limit = _memory_used(memory), memory.get("limit") or 0
    received, sent = _network(sample)
    read, written = _blocks(sample)
    return {
        "ID": sample["id"] if full else format.short_id(sample["id"]),
        "Container": sample["id"],
        "Name": str(sample.get("name") or "--").lstrip("/"),
        "CPUPerc": f"{cpu_percent(sample, previous):.2f}%",
        "MemUsage": f"{format.binary_size(used)} / {format.binary_size(limit)}",
        "MemPerc": f"{100 * used / limit if limit else 0:.2f}%",
        "NetIO": f"{format.decimal_size(received)} / {format.decimal_size(sent)}",
        "BlockIO": f"{format.decimal_size(read)} / {format.decimal_size(written)}",
        "PIDs": str((sample.get("pids_stats") or {}).get("current") or 0),
    }


def _memory_used(memory: dict[str, Any]) -> int:
    """Usage without the page cache that can be dropped, as Docker counts it."""
    usage = int(memory.get("usage") or 0)
    details = memory.get("stats") or {}
    cache = int(details.get("total_inactive_file", details.get("inactive_file", 0)) or 0)
    return usage - cache if cache < usage else usage


def cpu_percent(sample: dict[str, Any], previous: dict[str, Any] | None) -> float:
    """Processor time over wall time since the sample before; 100 is one processor."""
    now = sample.get("cpu_stats") or {}
    before = sample.get("precpu_stats") or {}
    if not before.get("system_cpu_usage") and previous:
        before = previous.get("cpu_stats") or {}
    if not before.get("system_cpu_usage"):
        return 0.0
    used = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get(
        "total_usage", 0
    )
    passed = now.get("system_cpu_usage", 0) - before["system_cpu_usage"]
    cpus = now.get("online_cpus") or 1
    return float(used / passed * cpus * 100) if used > 0 and passed > 0 else 0.0


def _network(sample: dict[str, Any]) -> tuple[int, int]:
    links = (sample.get("networks") or {}).values()
    return sum(n.get("rx_bytes", 0) for n in links), sum(n.get("tx_bytes", 0) for n in links)


def _blocks(sample: dict[str, Any]) -> tuple[int, int]:
    totals = {"read": 0, "write": 0}
    for entry in (sample.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        operation = str(entry.get("op", "")).lower()
        if operation in totals:
            totals[operation] += entry.get("value", 0)
    return totals["read"], totals["write"]
