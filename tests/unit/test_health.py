"""Health checks as data: merging, and what a result makes of what was known."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from proa.cli import health as options
from proa.cli.options import Command, Values, duration_ns, parse
from proa.engine import health
from proa.engine.health import Result, after, begun, interval_seconds
from proa.engine.instance import load_spec
from proa.engine.request import merge
from proa.errors import Invalid
from proa.spec import Health

IMAGE = {
    "Cmd": ["x"],
    "Shell": ["/bin/ash", "-c"],
    "Healthcheck": {"Test": ["CMD-SHELL", "check"], "Interval": 5_000_000, "Retries": 7},
}
SECOND = 1_000_000_000


def merged(asked: Any, image: dict[str, Any] | None = None) -> Health:
    body = {"Image": "web"} | ({} if asked is None else {"Healthcheck": asked})
    return merge(body, IMAGE if image is None else image, "0" * 64).health


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        (None, Health(("CMD-SHELL", "check"), ("/bin/ash", "-c"), 5_000_000, retries=7)),
        ({}, Health(("CMD-SHELL", "check"), ("/bin/ash", "-c"), 5_000_000, retries=7)),
        (
            {"Interval": 0, "Timeout": 9_000_000},
            Health(("CMD-SHELL", "check"), ("/bin/ash", "-c"), 5_000_000, 9_000_000, retries=7),
        ),
        (
            {"Test": ["CMD", "a", "b"], "Retries": 1, "StartPeriod": SECOND},
            Health(("CMD", "a", "b"), (), 5_000_000, start_period_ns=SECOND, retries=1),
        ),
        ({"Test": ["NONE"]}, Health(("NONE",))),
    ],
)
def test_what_is_left_out_is_the_images(asked: Any, wanted: Health) -> None:
    assert merged(asked) == wanted


def test_without_any_nothing_is_checked() -> None:
    assert not health.enabled(merged(None, {"Cmd": ["x"]}))
    assert not health.enabled(merged({"Test": ["NONE"]}))
    assert health.enabled(merged(None))


def test_a_shell_command_runs_in_the_images_shell() -> None:
    assert health.arguments(merged(None)) == ("/bin/ash", "-c", "check")
    plain = merged({"Test": ["CMD-SHELL", "a b"]}, {"Cmd": ["x"]})
    assert health.arguments(plain) == ("/bin/sh", "-c", "a b")
    assert health.arguments(merged({"Test": ["CMD", "a", "b"]})) == ("a", "b")


@pytest.mark.parametrize(
    "asked",
    [
        {"Interval": 999_999}, {"Timeout": -1}, {"StartPeriod": 1}, {"StartInterval": -SECOND},
        {"Retries": -1}, {"Test": ["HTTP", "x"]}, {"Test": ["CMD"]}, {"Test": ["NONE", "x"]},
        {"Test": [3]}, {"Interval": "1s"}, [], "x",
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(asked: Any) -> None:
    with pytest.raises(Invalid):
        merged(asked)
    with pytest.raises(Invalid):
        merged(None, {"Cmd": ["x"], "Healthcheck": asked})


def test_records_keep_it_and_older_ones_load() -> None:
    spec = merge({"Image": "web"}, IMAGE, "0" * 64)
    data = asdict(spec)
    data["health"] = {**data["health"], "test": list(spec.health.test), "shell": ["/bin/ash", "-c"]}
    assert load_spec(data).health == spec.health
    del data["health"]
    assert load_spec(data).health == Health()


def told(results: str, check: Health, age_ns: int = 0) -> dict[str, Any]:
    """What is known after these results: `+` healthy, `-` not."""
    known = begun()
    for moment, result in enumerate(results):
        ended = Result(moment, moment + 1, "+-".index(result), str(moment))
        known = after(known, check, ended, age_ns)
    return known


@pytest.mark.parametrize(
    ("results", "status", "streak"),
    [
        ("", "starting", 0), ("+", "healthy", 0), ("--", "starting", 2), ("---", "unhealthy", 3),
        ("+--", "healthy", 2), ("+--+--", "healthy", 2), ("---+", "healthy", 0),
        ("----", "unhealthy", 4),
    ],
)  # fmt: skip
def test_three_failures_in_a_row(results: str, status: str, streak: int) -> None:
    known = told(results, Health(("CMD", "x")))
    assert (known["Status"], known["FailingStreak"]) == (status, streak)


def test_in_the_start_period_failures_count_once_it_was_healthy() -> None:
    check = Health(("CMD", "x"), start_period_ns=SECOND, retries=1)
    assert told("-----", check)["Status"] == "starting"
    assert told("-----", check)["FailingStreak"] == 0
    assert told("-+-", check)["Status"] == "unhealthy"
    assert told("-", check, SECOND)["Status"] == "unhealthy"


def test_five_results_are_kept() -> None:
    assert [entry["Output"] for entry in told("+" * 8, Health())["Log"]] == list("34567")


def test_from_probe_to_probe() -> None:
    check = Health(("CMD", "x"), start_period_ns=SECOND)
    assert interval_seconds(check, "starting", 0) == 5
    assert interval_seconds(check, "starting", SECOND) == 30
    assert interval_seconds(check, "healthy", 0) == 30


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("0", 0), ("1m30s", 90 * SECOND), ("1.5h", 5400 * SECOND), ("250ms", SECOND // 4),
     ("7us", 7000), ("9ns", 9)],
)  # fmt: skip
def test_durations(text: str, nanoseconds: int) -> None:
    assert duration_ns(text) == nanoseconds


@pytest.mark.parametrize(
    "text", ["", "5", "s", "1x", "1.2.3s", "-1s", "1hm", " 1s", "9" * 30 + "h"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        duration_ns(text)


def test_durations_are_told_as_go_does() -> None:
    shown = [health.duration(seconds) for seconds in (0.25, 1.5, 30, 60, 90, 3600)]
    assert shown == ["250ms", "1.5s", "30s", "1m0s", "1m30s", "1h0m0s"]


def read(*words: str) -> Values:
    command = Command("", "x", lambda values, arguments: 0, options.OPTIONS)
    return parse("run", command, list(words))[0]


def test_options() -> None:
    assert options.check(read()) == {}
    assert options.check(read("--health-cmd", "a b", "--health-interval=1s")) == {
        "Test": ["CMD-SHELL", "a b"], "Interval": SECOND,
    }  # fmt: skip
    assert options.check(read("--no-healthcheck")) == {"Test": ["NONE"]}
    for wrong in (["--no-healthcheck", "--health-cmd", "x"], ["--health-retries", "-1"]):
        with pytest.raises(Invalid):
            options.check(read(*wrong))
