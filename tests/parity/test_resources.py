"""Limits, statistics, process lists, and nothing left after removal."""

from __future__ import annotations

import pytest

from tests.support.engine import EngineProcess, leftovers
from tests.support.http import ApiError
from tests.support.instances import Place, eventually

MIB = 1 << 20


def test_a_memory_limit_is_enforced(place: Place) -> None:
    instance = place.start("busy", "/probe", "alloc", "200", host={"Memory": 128 * MIB})
    assert instance.wait() == 137
    assert instance.state()["OOMKilled"] is True


def test_what_fits_the_limit_runs(place: Place) -> None:
    result = place.run("busy", "/probe", "alloc", "64", host={"Memory": 128 * MIB})
    assert (result.code, result.stdout) == (0, "ok\n")


def test_processes_are_limited(place: Place) -> None:
    script = "for i in $(seq 40); do sleep 5 & done; echo never"
    result = place.run("busy", "sh", "-c", script, host={"PidsLimit": 20})
    assert "never" not in result.stdout
    assert "fork" in result.stderr


def test_cpu_share_is_accepted_and_shown(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000", host={"NanoCpus": 500_000_000})
    assert instance.inspect()["HostConfig"]["NanoCpus"] == 500_000_000


def test_statistics(place: Place) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; sleep 1000"
    instance = place.start("busy", "sh", "-c", script, host={"Memory": 128 * MIB})
    stats = instance.api.json("GET", f"{instance.path}/stats", stream=0)
    assert 0 < stats["memory_stats"]["usage"] <= 256 * MIB
    assert stats["memory_stats"]["limit"] >= 128 * MIB
    assert stats["cpu_stats"]["cpu_usage"]["total_usage"] > 0
    assert stats["pids_stats"]["current"] >= 1
    assert stats["networks"]


def test_top_lists_the_processes_inside(place: Place) -> None:
    instance = place.start("busy", "sh", "-c", "sleep 1234; true")
    table = eventually(lambda: _of_two(instance.api.json("GET", f"{instance.path}/top")))
    assert {"PID", "CMD"} <= set(table["Titles"])
    assert sorted(row[-1].split()[0] for row in table["Processes"]) == ["sh", "sleep"]


def _of_two(table: dict[str, list[list[str]]]) -> dict[str, list[list[str]]] | None:
    """Once the shell has its child, and that is a program of its own."""
    commands = [row[-1] for row in table["Processes"]]
    return table if len(commands) == 2 and "sleep 1234" in commands else None


def test_auto_remove_leaves_nothing(place: Place, session_engine: EngineProcess) -> None:
    instance = place.create("busy", "true", host={"AutoRemove": True})
    instance.start()
    try:
        instance.wait("removed")
    except ApiError as gone:
        assert gone.status == 404
    eventually(lambda: instance.id not in instance.api.ids())
    assert not (session_engine.root / "instances" / instance.id).exists()
    assert not residue(session_engine, instance.id)


def test_removal_leaves_nothing(place: Place, session_engine: EngineProcess) -> None:
    instance = place.start("busy", "sleep", "1000", host={"Memory": 128 * MIB})
    with pytest.raises(ApiError) as refusal:
        instance.remove(force=False)
    assert refusal.value.status == 409
    instance.remove()
    with pytest.raises(ApiError) as gone:
        instance.inspect()
    assert gone.value.status == 404
    assert not (session_engine.root / "instances" / instance.id).exists()
    assert not residue(session_engine, instance.id)


def residue(session_engine: EngineProcess, identity: str) -> list[str]:
    """What still carries the instance's id: its interface, cgroup, processes."""
    found = leftovers(session_engine.root, frozenset({identity}), patience=0)
    return [
        line for line in found if identity[:8] in line and not line.startswith(("nft", "mount"))
    ]


def test_a_name_is_unique_and_free_after_removal(place: Place) -> None:
    name = f"unique-{place.isolation}"
    first = place.create("busy", "true", name=name)
    with pytest.raises(ApiError) as refusal:
        place.create("busy", "true", name=name)
    assert refusal.value.status == 409
    assert name in refusal.value.message
    first.remove()
    place.create("busy", "true", name=name)


def test_statistics_without_a_limit_show_the_memory_there_is(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000")
    total = instance.exec("grep", "MemTotal", "/proc/meminfo").stdout.split()[1]
    stats = instance.api.json("GET", f"{instance.path}/stats", stream=0)
    assert stats["memory_stats"]["limit"] == int(total) * 1024


def test_a_paused_one_is_not_paused_again(place: Place) -> None:
    instance = place.start("busy", "sleep", "1000")
    instance.api.call("POST", f"{instance.path}/pause")
    with pytest.raises(ApiError, match="already paused"):
        instance.api.call("POST", f"{instance.path}/pause")
    instance.api.call("POST", f"{instance.path}/unpause")
