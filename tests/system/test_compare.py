"""`proa compare` as its user has it: reports, changes, errors, and nothing left behind."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from proa.client.sdk import Client
from proa.compare import document, session
from proa.compare.fleet import RUN_LABEL
from proa.compare.options import Options
from proa.compare.progress import Progress
from proa.compare.record import Report
from tests.support.engine import EngineProcess
from tests.support.paths import PROA

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/schemas/compare.json").read_text())
ROUNDS = 2


def left(running: EngineProcess) -> list[Any]:
    """Instances of comparisons that are still there."""
    with Client(f"unix://{running.socket}") as client:
        query: dict[str, object] = {"all": True, "filters": {"label": [RUN_LABEL]}}
        found: list[Any] = client.call("GET", "/containers/json", query)
        return found


@pytest.fixture(scope="module")
def both(session_engine: EngineProcess) -> Report:
    """A container and a vm that serve a page, seen starting, working and idling."""
    told: list[Progress] = []
    options = Options(
        "busy", command=("sh", "-c", "echo up; exec httpd -f -p 80 -h /etc"), port=80,
        forms=("container", "vm"), groups=("size", "time", "cost", "work"), rounds=ROUNDS,
        quick=True, density=2, seed=7, ready='test -n "$PROA_TARGET"',
    )  # fmt: skip
    with Client(f"unix://{session_engine.socket}") as client:
        report = session.compare(client, options, told.append)
    assert {now.round for now in told} == {0, 1, ROUNDS}
    assert any(now.left_seconds for now in told if not now.round)
    return report


def test_a_report_is_whole(both: Report, session_engine: EngineProcess) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(document.write(both)))
    container, vm = both.forms
    assert (container.isolation, vm.isolation) == ("container", "vm")
    assert container.kernel and vm.kernel and container.kernel != vm.kernel
    assert vm.start and vm.accelerator in ("tcg", "kvm")
    assert both.subject.command[0] == "sh" and both.subject.port == 80
    assert both.machine["seed"] == "7"
    assert left(session_engine) == []


def test_every_start_is_measured_in_every_round(both: Report) -> None:
    found = {measure.key: measure for measure in both.measures}
    for milestone in ("place", "init", "exec", "first-output", "port-open", "ready"):
        samples = found[f"time.{milestone}.warm"].samples
        assert {form: len(taken) for form, taken in samples.items()} == {
            "container": ROUNDS, "vm": ROUNDS,
        }, milestone  # fmt: skip
    for key, moments in both.timelines.items():
        names = [moment.milestone for moment in moments]
        assert names.index("place") < names.index("init") < names.index("exec"), key
        assert {"first output", "port open"} <= set(names)
    assert found["work.cpu"].overhead is not None
    assert found["time.exec.warm"].overhead is not None


def test_memory_and_sizes_of_a_vm_are_more_and_add_up(both: Report) -> None:
    found = {measure.key: measure for measure in both.measures}
    for key in ("cost.memory", "cost.further", "size.disk"):
        taken = found[key].intervals
        assert taken["vm"].median > taken["container"].median, key
    for parts in both.memory.values():
        total = sum(part.bytes for part in parts)
        assert any(total == value for by in (found["cost.memory"].samples,)
                   for values in by.values() for value in values)  # fmt: skip
    assert found["size.added"].samples["container"] == (0.0,)
    assert "extrapolation" in found["cost.density"].how
    assert {d.verdict for d in found["size.disk"].differences} == {"higher"}


def test_what_was_not_measured_is_said(both: Report) -> None:
    said = {one.what: one.why for one in both.left}
    assert said["isolation"] == said["portability"] == "not asked for"
    assert any("cold starts" in what for what in said)


def test_identical_forms_and_the_files_that_are_written(
    session_engine: EngineProcess, tmp_path: Path
) -> None:
    paths = {name: tmp_path / name for name in ("a.json", "a.html", "b.json")}
    words = ("compare", "busy", "--forms", "container,container", "--only", "time", "--burst", "2",
             "--rounds", "8")  # fmt: skip
    first = session_engine.proa(
        *words, "--json", str(paths["a.json"]), "--html", str(paths["a.html"]), "--", "echo", "hi"
    )
    assert first.returncode == 0, first.stderr
    assert b"Container" in first.stdout and b"round 8 of 8" in first.stderr
    report = document.read(paths["a.json"])
    assert [form.key for form in report.forms] == ["container", "container-2"]
    keys = {measure.key for measure in report.measures}
    assert {"time.end.warm", "time.first-output.cold", "time.first-output.burst"} <= keys
    assert {d.verdict for m in report.measures for d in m.differences} == {"no difference"}
    assert paths["a.html"].read_text().startswith("<!doctype html>")
    assert left(session_engine) == []
    slower = json.loads(paths["a.json"].read_text())
    for measure in slower["measures"]:
        measure["samples"] = {form: [v / 50 for v in s] for form, s in measure["samples"].items()}
    paths["b.json"].write_text(json.dumps(slower))
    again = session_engine.proa(
        *words, "--quick", "--baseline", str(paths["b.json"]), "--", "echo", "hi"
    )
    assert again.returncode == 3, again.stderr
    assert b"slower" in again.stdout or b"worse" in again.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_comparison_leaves_nothing(
    session_engine: EngineProcess, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [PROA, "compare", "busy", "--forms", "container,container", "--only", "time", "--rounds",
         "500", "--", "sleep", "600"],
        env=session_engine.variables(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stderr is not None
    said, end = b"", time.monotonic() + 60
    while b"round 2" not in said and time.monotonic() < end:
        select.select([process.stderr], [], [], 1)
        said += os.read(process.stderr.fileno(), 4096)
    assert b"round 2" in said
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(30) == 130, rest
    assert b"Traceback" not in rest
    assert left(session_engine) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("busy", "--forms", "container,plane"), "'plane' is no form"),
        (("busy", "--forms", "container"), "is not 2 to"),
        (("busy", "--only", "beauty"), "'beauty' cannot be measured"),
        (("busy", "--confidence", "1"), "a confidence of '1.0'"),
        (("busy", "--port", "70000"), "'70000' is not a value for '--port'"),
        (("busy", "--burst", "-1"), "'-1' is not a value for '--burst'"),
        (("./none.qcow2",), "there is no disk './none.qcow2'"),
        (("busy", "--baseline", "none.json"), "there is no report 'none.json'"),
        (("busy", "--json", "/nowhere/at/all.json"), "cannot be written"),
        (("busy", "--json", "-", "--html", "-"), "contradicts"),
        (("busy", "--forms", "container,container", "--", "/no/such"), "works in no form"),
        (("busy", "--load", "true", "--", "sleep", "9"), "no port"),
    ],
)
def test_errors_are_one_line(
    session_engine: EngineProcess, words: tuple[str, ...], said: str
) -> None:
    done = session_engine.proa("compare", *words)
    lines = [
        line for line in done.stderr.decode().splitlines()
        if not line.startswith("hint: ") and "first start" not in line
    ]  # fmt: skip
    assert done.returncode not in (0, 3)
    assert len(lines) == 1 and lines[0].startswith("proa: ") and said in lines[0], lines
