"""`/containers/{id}/stats`: what an instance costs the host, in Docker's shape."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from proa.api.answer import Answer, Streamed, json_bytes, json_reply
from proa.api.docker import lookup
from proa.api.docker.times import NEVER, rfc3339
from proa.api.request import Request
from proa.errors import Conflict, NotFound

if TYPE_CHECKING:
    from proa.engine.engine import Engine
    from proa.engine.instance import Instance
    from proa.engine.stats import Stats

INTERVAL_SECONDS = 1.0
FIRST_INTERVAL_SECONDS = 0.2  # long enough for a processor share, short for one who waits
RUNNING = frozenset({"running", "paused"})


def stats(engine: Engine, request: Request) -> Answer:
    """GET /containers/{id}/stats."""
    found = lookup.instance(engine, request)
    if request.flag("stream", True):
        return Streamed(_stream(engine, found.id))
    if found.state not in RUNNING:
        return json_reply(_shape(found, None, None))
    before = None
    if not request.flag("one-shot"):
        before = engine.stats(found.id)
        time.sleep(FIRST_INTERVAL_SECONDS)
    return json_reply(_shape(found, engine.stats(found.id), before))


def _stream(engine: Engine, identity: str) -> Iterator[bytes | None]:
    """A sample a second while it exists; a stopped instance is waited for, as dockerd does."""
    before: Stats | None = None
    due = time.monotonic()
    while True:
        try:
            found = engine.get(identity)
            now = engine.stats(identity) if found.state in RUNNING else None
        except NotFound:
            return
        except Conflict:
            now = None  # it ended between the two questions
        if now is not None and before is not None:
            yield json_bytes(_shape(found, now, before))
        else:
            yield None
        first = now is not None and before is None
        before = now
        due += FIRST_INTERVAL_SECONDS if first else INTERVAL_SECONDS
        time.sleep(max(0.0, due - time.monotonic()))


def _shape(found: Instance, now: Stats | None, before: Stats | None) -> dict[str, Any]:
    named: dict[str, Any] = {"name": f"/{found.name}", "id": found.id}
    if now is None:
        empty: dict[str, Any] = {"read": NEVER, "preread": NEVER, "pids_stats": {}}
        return empty | {"memory_stats": {}, "cpu_stats": {}, "precpu_stats": {}} | named
    return {
        "read": rfc3339(now.read_ns),
        "preread": rfc3339(before.read_ns) if before else NEVER,
        "pids_stats": {"current": now.pids},
        "blkio_stats": _blkio(now),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before) if before else {},
        "memory_stats": {
            "usage": now.memory_bytes,
            "max_usage": now.memory_peak,
            "limit": now.memory_limit,
            "stats": {},
        },
        "networks": {name: _network(*counts) for name, counts in now.networks.items()},
    } | named


def _cpu(sample: Stats) -> dict[str, Any]:
    return {
        "cpu_usage": {
            "total_usage": sample.cpu_ns,
            "usage_in_kernelmode": 0,
            "usage_in_usermode": 0,
        },
        "system_cpu_usage": sample.system_cpu_ns,
        "online_cpus": sample.online_cpus,
        "throttling_data": {"periods": 0, "throttled_periods": 0, "throttled_time": 0},
    }


def _blkio(sample: Stats) -> dict[str, Any]:
    transferred = [
        {"major": 0, "minor": 0, "op": "read", "value": sample.read_bytes},
        {"major": 0, "minor": 0, "op": "write", "value": sample.write_bytes},
    ]
    return {"io_service_bytes_recursive": transferred}


def _network(received: int, packets_in: int, sent: int, packets_out: int) -> dict[str, int]:
    return {
        "rx_bytes": received,
        "rx_packets": packets_in,
        "rx_errors": 0,
        "rx_dropped": 0,
        "tx_bytes": sent,
        "tx_packets": packets_out,
        "tx_errors": 0,
        "tx_dropped": 0,
    }
