"""Pausing the idle, on both isolations: who stops, what wakes it, and that nobody notices."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import engine
from tests.support.http import ApiError
from tests.support.images import busy_image
from tests.support.instances import Instance, Place, eventually

SERVE = "echo here >/srv/index.html; exec httpd -f -p 8080 -h /srv"
TICK = "mkfifo /tmp/f; exec 3<>/tmp/f; while :; do echo tick; read -t 1 x <&3; done"
BOUND: dict[str, Any] = {
    "ExposedPorts": {"8080/tcp": {}},
    "host": {"PortBindings": {"8080/tcp": [{}]}},
}
NOTHING_NS = 2_000_000  # a stopped QEMU still looks at the broadcasts that come by
SLEEP = ("sh", "-c", "exec sleep 100000")


def start(place: Place, *command: str, **config: Any) -> Instance:
    """An instance that may doze after so long."""
    return place.start("busy", *command, Proa={"PauseIdleSeconds": 1}, **config)


def idle(instance: Instance) -> bool:
    """Whether it is stopped for want of work; to users it runs."""
    found = instance.inspect()
    assert found["State"]["Status"] == "running" and not found["State"]["Paused"]
    return bool(found["Proa"]["Idle"])


def dozed(instance: Instance) -> Instance:
    """Once it dozes."""
    eventually(lambda: idle(instance), 20, "it does not doze")
    return instance


def cpu_ns(instance: Instance) -> int:
    """What it cost the host so far."""
    return int(instance.api.json("GET", f"/proa/instances/{instance.id}/usage")["cpu_ns"])


def test_stopped_it_costs_nothing_and_says_so(place: Place) -> None:
    instance = dozed(start(place, *SLEEP))
    row = next(r for r in instance.api.json("GET", "/containers/json") if r["Id"] == instance.id)
    assert row["State"] == "running" and row["Status"].endswith("(idle)")
    before = cpu_ns(instance)
    other = dozed(start(place, *SLEEP))
    assert cpu_ns(instance) - before < NOTHING_NS
    assert idle(instance) and idle(other)


def test_an_exec_wakes_it_and_the_clock_is_right(place: Place) -> None:
    instance = dozed(start(place, *SLEEP))
    before = time.time()
    found = int(instance.exec("date", "+%s").stdout)
    assert before - 1 <= found <= time.time() + 1


def test_a_packet_to_its_published_port_wakes_it(place: Place) -> None:
    instance = start(place, "sh", "-c", SERVE, **BOUND)
    settings = instance.inspect()["NetworkSettings"]
    port = settings["Ports"]["8080/tcp"][0]["HostPort"]
    for address in (f"127.0.0.1:{port}", f"{settings['IPAddress']}:8080"):
        dozed(instance)
        with urllib.request.urlopen(f"http://{address}/", timeout=10) as page:
            assert page.read() == b"here\n"
        assert not idle(instance)


def test_copying_and_signals_wake_it(place: Place) -> None:
    instance = dozed(
        start(place, "sh", "-c", "trap 'exit 7' TERM; while :; do sleep 1000 & wait; done")
    )
    instance.put("/tmp", {"brought": b"content"})
    dozed(instance)
    assert instance.get("/tmp/brought") == {"brought": b"content"}
    instance.stop()
    assert instance.wait() == 7


def test_timers_inside_do_not_storm(place: Place) -> None:
    instance = dozed(start(place, "sh", "-c", TICK))
    ticks = instance.logs().stdout.count("tick")
    dozed(start(place, *SLEEP))  # a period of its timer, or more
    assert instance.logs().stdout.count("tick") == ticks
    woken = time.monotonic()
    instance.exec("true")
    eventually(lambda: instance.logs().stdout.count("tick") > ticks)
    more = instance.logs().stdout.count("tick") - ticks
    assert more <= time.monotonic() - woken + 2, "what was missed is not made up for"


def test_who_is_used_stays_awake(place: Place) -> None:
    typing, working, watched = (start(place, "cat", OpenStdin=True) for _ in range(3))
    client = typing.attach(stdin=1)
    stream = working.exec_start(working.exec_create("sleep", "1000"))
    watched.api.json("GET", f"{watched.path}/stats", stream=0)
    dozed(watched)
    dozed(start(place, *SLEEP))
    watched.api.json("GET", f"{watched.path}/stats", stream=0)
    assert idle(watched), "being watched is no use"
    assert not idle(typing) and not idle(working)
    client.close()
    dozed(typing)
    stream.close()


def test_pausing_it_by_hand_still_works(place: Place) -> None:
    instance = dozed(start(place, *SLEEP))
    instance.api.call("POST", f"{instance.path}/pause")
    assert instance.state()["Status"] == "paused"
    instance.api.call("POST", f"{instance.path}/unpause")
    assert instance.exec("echo", "back").stdout == "back\n"


def test_nonsense_is_refused(place: Place) -> None:
    with pytest.raises(ApiError, match="no time to pause the idle after"):
        place.create("busy", "true", Proa={"PauseIdleSeconds": -2})


def test_engines_leave_nobody_asleep() -> None:
    with engine("proa-idle-") as running:
        running.api.load(busy_image())
        place = Place(running.api, "container")
        instance = dozed(start(place, *SLEEP))
        running.kill()
        running.start()
        assert instance.exec("echo", "awake").stdout == "awake\n"
        dozed(instance)
        freezer = Path(f"/proc/{instance.state()['Pid']}/stat")
        running.stop()
        assert freezer.read_text().rpartition(")")[2].split()[0] == "S"
        running.start()
        place.close()
