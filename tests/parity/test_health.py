"""Health checks, on both isolations: who is told what, and when."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.support.engine import EngineProcess
from tests.support.http import Request, send
from tests.support.instances import Api, Instance, Place, eventually

MILLISECOND = 1_000_000
SLEEP = ("sh", "-c", "exec sleep 100000")
OK = ["CMD-SHELL", "test ! -e /bad"]


def checked(place: Place, test: list[str], **more: Any) -> Instance:
    """An instance checked ten times a second."""
    asked = {"Test": test, "Interval": 100 * MILLISECOND, "Timeout": 20_000 * MILLISECOND}
    return place.start("busy", *SLEEP, Healthcheck=asked | more)


def await_status(instance: Instance, status: str, count: int = 1) -> list[str]:
    """Wait for the event that many times; the statuses told so far."""
    filters = json.dumps({"container": [instance.id], "type": ["container"]})
    query = {"since": "1", "filters": filters}
    seen: list[str] = []
    with closing(send(instance.api.socket, Request("GET", "/events", query))) as stream:
        while seen.count(status) < count:
            event = json.loads(stream.readline())
            kind, _, told = event["Action"].partition(": ")
            if kind == "health_status":
                seen.append(told)
    return seen


def known(instance: Instance) -> dict[str, Any]:
    """Docker's State.Health."""
    return dict(instance.state()["Health"])


def rows(api: Api, **filters: str) -> dict[str, str]:
    """Ids and status texts of a listing."""
    asked = json.dumps({key: [value] for key, value in filters.items()})
    return {row["Id"]: row["Status"] for row in api.json("GET", "/containers/json", filters=asked)}


def test_it_becomes_healthy_unhealthy_and_healthy_again(place: Place) -> None:
    instance = checked(place, ["CMD-SHELL", "echo seen; test ! -e /bad"], Retries=2)
    assert await_status(instance, "healthy") == ["healthy"]
    assert rows(place.api, health="healthy")[instance.id].endswith(" (healthy)")
    first = known(instance)["Log"][0]
    assert (first["ExitCode"], first["Output"]) == (0, "seen\n")
    assert first["Start"] < first["End"]
    instance.exec("touch", "/bad")
    assert await_status(instance, "unhealthy") == ["healthy", "unhealthy"]
    assert known(instance)["FailingStreak"] >= 2
    assert rows(place.api, health="unhealthy")[instance.id].endswith(" (unhealthy)")
    assert instance.id not in rows(place.api, health="healthy")
    instance.exec("rm", "/bad")
    assert await_status(instance, "healthy", 2) == ["healthy", "unhealthy", "healthy"]
    assert known(instance)["FailingStreak"] == 0
    eventually(lambda: len(known(instance)["Log"]) == 5)
    instance.kill()
    instance.wait()
    assert known(instance)["Status"] == "unhealthy"
    instance.start()
    assert known(instance)["Status"] in ("starting", "healthy")
    assert await_status(instance, "healthy", 3)


def test_a_probe_that_hangs_is_killed(place: Place) -> None:
    """And what it wrote before, as far as it is kept, is told."""
    hang = "head -c 9999 /dev/zero | tr '\\0' x; exec sleep 77777"
    instance = checked(place, ["CMD-SHELL", hang], Timeout=1500 * MILLISECOND, Retries=1)
    await_status(instance, "unhealthy")
    last = known(instance)["Log"][-1]
    assert last["ExitCode"] == -1
    assert last["Output"] == f"Health check exceeded timeout (1.5s): {'x' * 4096}..."
    eventually(lambda: len(known(instance)["Log"]) >= 3)
    eventually(lambda: instance.exec("ps").stdout.count("sleep 77777") <= 1)


def test_failures_while_it_starts_do_not_count(place: Place) -> None:
    often = {"StartInterval": 100 * MILLISECOND, "StartPeriod": 3_600_000 * MILLISECOND}
    instance = checked(place, ["CMD", "test", "-e", "/late"], Retries=1, **often)
    eventually(lambda: len(known(instance)["Log"]) >= 2)
    assert (known(instance)["Status"], known(instance)["FailingStreak"]) == ("starting", 0)
    assert rows(place.api, health="starting")[instance.id].endswith(" (health: starting)")
    instance.exec("touch", "/late")
    assert await_status(instance, "healthy") == ["healthy"]
    instance.exec("rm", "/late")
    assert await_status(instance, "unhealthy") == ["healthy", "unhealthy"]


def test_none_and_a_program_that_is_not_there(place: Place) -> None:
    plain = checked(place, ["NONE"])
    assert "Health" not in plain.state()
    assert plain.id in rows(place.api, health="none")
    instance = checked(place, ["CMD", "/no/such"], Retries=1)
    await_status(instance, "unhealthy")
    last = known(instance)["Log"][-1]
    assert last["ExitCode"] == -1 and "/no/such" in last["Output"]
    assert "health" not in rows(place.api)[plain.id]


def test_paused_it_is_passed_over(place: Place) -> None:
    instance = checked(place, OK, Retries=1)
    await_status(instance, "healthy")
    other = checked(place, OK, Retries=1)
    place.api.call("POST", f"{instance.path}/pause")
    paused = known(instance)["Log"][-1]
    await_status(other, "healthy")
    assert known(instance)["Status"] == "healthy"
    assert instance.state()["Paused"]
    place.api.call("POST", f"{instance.path}/unpause")
    eventually(lambda: known(instance)["Log"][-1]["Start"] > paused["Start"])
    assert known(instance)["Status"] == "healthy"


def test_asleep_it_is_not_woken(place: Place) -> None:
    hour = 3_600_000 * MILLISECOND
    asked = {"Test": OK, "Interval": hour, "StartPeriod": hour, "StartInterval": 2500 * MILLISECOND}
    instance = place.start("busy", *SLEEP, Healthcheck=asked, Proa={"PauseIdleSeconds": 1})
    eventually(lambda: instance.inspect()["Proa"]["Idle"], 20)
    other = checked(place, OK)
    await_status(other, "healthy")
    assert instance.inspect()["Proa"]["Idle"]
    instance.exec("true")
    assert await_status(instance, "healthy") == ["healthy"]


def test_another_engine_goes_on_with_it(place: Place, session_engine: EngineProcess) -> None:
    instance = checked(place, OK, Retries=1)
    await_status(instance, "healthy")
    session_engine.kill()
    session_engine.start()
    assert known(instance)["Status"] == "healthy"
    instance.exec("touch", "/bad")
    assert await_status(instance, "unhealthy") == ["unhealthy"]


def test_dockers_own_client(
    place: Place, session_engine: EngineProcess, require_program: Callable[[str], str]
) -> None:
    docker = [require_program("docker"), "--host", f"unix://{session_engine.socket}"]
    options = ["--isolation", place.isolation, "--health-cmd", "test ! -e /bad"]
    options += ["--health-interval", "100ms", "--rm"]
    words = [*docker, "run", "-d", *options, "busy", *SLEEP]
    made = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    instance = Instance(place.api, made.stdout.strip())
    place.made.append(instance)
    await_status(instance, "healthy")
    for words, wanted in (
        (["inspect", "-f", "{{.State.Health.Status}} {{len .State.Health.Log}}"], "healthy "),
        (["ps", "--filter", "health=healthy", "--format", "{{.Status}}", "--filter"], "(healthy)"),
    ):
        target = instance.id if words[0] == "inspect" else f"id={instance.id}"
        asked = subprocess.run(
            [*docker, *words, target], capture_output=True, text=True, timeout=60
        )
        assert wanted in asked.stdout, asked


def test_our_command_line(place: Place, session_engine: EngineProcess) -> None:
    options = ["--isolation", place.isolation, "--health-cmd", "test ! -e /bad"]
    options += ["--health-interval", "100ms", "--health-retries", "1", "--health-timeout", "1m30s"]
    made = session_engine.proa("run", "-d", *options, "busy", *SLEEP)
    instance = Instance(place.api, made.stdout.decode().strip())
    place.made.append(instance)
    await_status(instance, "healthy")
    assert b"(healthy)" in session_engine.proa("ps", "--filter", f"id={instance.id}").stdout
    assert instance.inspect()["Config"]["Healthcheck"] == {
        "Test": ["CMD-SHELL", "test ! -e /bad"], "Interval": 100 * MILLISECOND,
        "Timeout": 90_000 * MILLISECOND, "Retries": 1,
    }  # fmt: skip
    refused = session_engine.proa("run", "--no-healthcheck", *options, "busy", "true")
    assert refused.returncode != 0 and b"--no-healthcheck" in refused.stderr
