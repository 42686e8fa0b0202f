"""`proa advise` and `--isolation auto` as their users use them; and images made to deceive."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proa.advice.tree import NAMES_MAXIMUM
from proa.client.sdk import Client
from tests.support.case_images import fill
from tests.support.cases import File, Link, Tree
from tests.support.engine import EngineProcess
from tests.support.http import ApiError
from tests.support.images import Layer, archive, probe_layer
from tests.support.instances import Api
from tests.support.programs import static, systemd, windows

POLICY = """
allowed = ["container"]
[[demand]]
when = { "stated.trust" = "untrusted" }
form = "vm"
why = "strangers are kept apart"
"""
APP = """
services:
  boot: {image: system}
  probe: {image: system, command: ["/probe"]}
  web: {image: advised, ports: ["80:80"]}
  tunnel: {image: nowhere/tunnel, privileged: true}
  agent:
    image: nowhere/agent
    volumes: ["/var/run/docker.sock:/var/run/docker.sock"]
    isolation: vm
"""


def load(api: Api, name: str, tree: Tree, **config: Any) -> str:
    """An image of a tree and the probe; its name."""
    layer = probe_layer()
    fill(layer, tree)
    api.load(archive(name, layer.bytes(), **config))
    return name


@pytest.fixture(scope="module")
def engine(session_engine: EngineProcess) -> Iterator[EngineProcess]:
    """The shared engine with two images to advise on."""
    load(session_engine.api, "advised", {}, Cmd=["/probe"], ExposedPorts={"80/tcp": {}})
    load(session_engine.api, "system", systemd("sshd", "nginx"), Cmd=["/sbin/init"])
    yield session_engine


def advise(engine: EngineProcess, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of `proa advise`."""
    done = engine.proa("advise", *words)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


# -- the command -----------------------------------------------------------------------------------


def test_it_says_what_and_why_and_what_would_flip_it(engine: EngineProcess) -> None:
    code, text, errors = advise(engine, "system")
    assert (code, errors) == (0, "")
    assert text.startswith("system: vm (strongly)\n")
    assert "existing, legacy and single workloads" in " ".join(text.split())
    assert "/etc/systemd/system/multi-user.target.wants/nginx.service" in text
    assert "what would make it the other form" in text
    _, quiet, _ = advise(engine, "-q", "advised")
    assert quiet == "container\n"
    _, listed, _ = advise(engine, "--facts", "advised")
    assert "os.architecture = amd64 [/probe (its header)]" in listed


def test_its_exit_codes_are_for_pipelines(engine: EngineProcess, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(POLICY)
    checked = ("--policy", str(policy))
    assert advise(engine, *checked, "advised")[0] == 0
    code, text, _ = advise(engine, *checked, "system")
    assert code == 3 and "a vm is not allowed, only container" in text
    assert advise(engine, *checked, "--trust", "untrusted", "advised")[0] == 3
    load(engine.api, "other", {"app": windows()}, Cmd=["/app"])
    code, text, _ = advise(engine, "--isolation", "container", "other")
    assert code == 4 and "windows" in text
    assert advise(engine, "--isolation", "container", "system")[0] == 0  # worse, and possible
    facts = [{"Key": "run.devices", "Value": ["/dev/dri"], "Source": "test"}]
    ruled_out = engine.api.json("POST", "/proa/advise", {"Image": "other", "Facts": facts})
    assert ruled_out["Form"] == "neither"
    assert advise(engine, "missing-image")[0] == 125
    for wrong in (("--budget", "soon"), ("--stated", "x=y"), ("--trust", "very"),
                  ("--policy", str(tmp_path / "none")), ("--isolation", "pod"),
                  ("--report", str(policy)), ("--split", "-")):  # fmt: skip
        code, text, errors = advise(engine, *wrong, "advised")
        assert (code, text) == (125, ""), wrong
        assert "hint: " in errors or "cannot read" in errors, wrong


def test_services_of_an_app_file_each_get_their_own(engine: EngineProcess, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text(APP)
    code, text, errors = advise(engine, "--json", str(path))
    found = {one["Name"]: one for one in json.loads(text)["Advice"]}
    assert {name: one["Form"] for name, one in found.items()} == {
        "boot": "vm", "probe": "container", "web": "container", "tunnel": "vm",
        "agent": "container",
    }  # fmt: skip
    assert code == 4 and "engine's socket" in found["agent"]["Contradiction"]
    assert "nowhere/tunnel" in errors and "'advised'" not in errors
    facts = {fact["Key"]: fact["Source"] for fact in found["web"]["Facts"]}
    assert facts["run.ports"].endswith("compose.yaml:5 services.web.ports")
    assert "size.bytes" in facts  # of the image, which is here


def test_measured_results_count(engine: EngineProcess, tmp_path: Path) -> None:
    slow = {"key": "time.first-output.warm", "group": "time", "better": "lower",
            "samples": {"container": [20.0], "vm": [900.0]}}  # fmt: skip
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"schema": "proa.compare/1", "measures": [slow]}))
    code, text, _ = advise(
        engine, "--report", str(report), "--budget", "start=300ms", "--isolation", "vm", "system"
    )
    assert code == 4 and "as a vm it took 900 ms to start, 300 are allowed" in text
    assert "report.json time.first-output.warm" in text


def test_the_library_asks_too(engine: EngineProcess) -> None:
    with Client(f"unix://{engine.socket}") as client:
        found = client.advise("advised", policy='allowed = ["vm"]', isolation="vm")
    assert (found["Form"], found["Asked"], found["Violations"]) == ("container", "vm", [])


# -- isolation: auto -------------------------------------------------------------------------------


def test_auto_runs_in_the_advised_form_and_says_so(engine: EngineProcess) -> None:
    done = engine.proa("run", "--rm", "--isolation", "auto", "advised", "/probe", "echo", "x")
    assert b"isolation 'auto' chose container" in done.stderr
    made = engine.api.json(
        "POST", "/containers/create",
        {"Image": "advised", "Labels": {"x-proa-trust": "untrusted"},
         "HostConfig": {"Isolation": "auto"}},
    )  # fmt: skip
    assert made["Warnings"][0].startswith("isolation 'auto' chose vm (")
    shown = engine.api.json("GET", f"/containers/{made['Id']}/json")
    assert shown["HostConfig"]["Isolation"] == shown["Proa"]["Isolation"] == "vm"
    assert shown["Proa"]["Advice"]["Form"] == "vm"
    assert "untrusted" in [one["Rule"] for one in shown["Proa"]["Advice"]["Reasons"]]
    engine.api.call("DELETE", f"/containers/{made['Id']}")


def test_auto_minds_the_command_that_is_asked_for(engine: EngineProcess) -> None:
    for command, form in ((None, "vm"), (["/probe"], "container")):
        body = {"Image": "system", "Cmd": command, "HostConfig": {"Isolation": "auto"}}
        made = engine.api.json("POST", "/containers/create", body)
        shown = engine.api.json("GET", f"/containers/{made['Id']}/json")
        assert shown["Proa"]["Isolation"] == form
        engine.api.call("DELETE", f"/containers/{made['Id']}")


def test_auto_takes_dockers_client(engine: EngineProcess, require_program: Any) -> None:
    docker = [require_program("docker"), "create", "--isolation", "auto", "advised"]
    done = subprocess.run(docker, env=engine.variables(), capture_output=True, text=True)
    assert done.returncode == 0 and "isolation 'auto' chose container" in done.stderr
    engine.api.call("DELETE", f"/containers/{done.stdout.strip()}")


def test_auto_is_no_guess_where_neither_form_can(engine: EngineProcess) -> None:
    load(engine.api, "other", {"app": windows()}, Cmd=["/app"])
    host = {"Isolation": "auto", "NetworkMode": "host"}
    with pytest.raises(ApiError) as refused:
        engine.api.json("POST", "/containers/create", {"Image": "other", "HostConfig": host})
    assert refused.value.status == 409 and "neither form" in str(refused.value)


def test_nobody_pays_for_advice_they_did_not_ask_for(engine: EngineProcess) -> None:
    script = (
        "import sys; import proa.engine.engine, proa.api.table\n"
        "print([name for name in sys.modules if name.startswith('proa.advice')])"
    )
    done = subprocess.run(
        ["python3", "-c", script], env=engine.variables(), capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


# -- images made to deceive ------------------------------------------------------------------------


def test_links_lead_nowhere_and_names_do_not_write_on_the_terminal(engine: EngineProcess) -> None:
    tree: Tree = {
        "etc/os-release": Link("../../../../../../etc/hostname"),
        "sbin/init": Link("/sbin/loop"), "sbin/loop": Link("/sbin/init"),
        "etc/modules": Link("/proc/self/environ"), "var/lib/dpkg/status": Link("/dev/zero"),
        "usr/bin/evil\x1b[2J": File(static().data, 0o4755),
        "etc/systemd/system/multi-user.target.wants/\x1b]0;x\x07.service": "",
        "boot/vmlinuz-6\u202e1": "x",
    }  # fmt: skip
    load(
        engine.api,
        "deceiver",
        tree,
        Cmd=["/probe"],
        User="\x1b[31m",
        Labels={"x-proa-trust": "own"},
    )
    code, text, errors = advise(engine, "--facts", "deceiver")
    assert code == 0, errors
    assert all(line.isprintable() for line in text.splitlines())
    assert "stated.trust" not in text and "os.name" not in text
    assert "/usr/bin/evil [2J" in text


def test_what_is_too_much_is_left(engine: EngineProcess) -> None:
    layer = Layer()
    layer.directory("usr/bin")
    for number in range(NAMES_MAXIMUM + 100):
        layer.symlink(f"usr/bin/{number:05}", "x")
    layer.file("etc/modules", "m\n" * 200_000)
    layer.file("etc/fifo", "")
    layer.add("etc/os-release", b"6", 0o644)  # a fifo, which nobody will ever write to
    layer.file("run.sh", "#!/bin/sh\n" + "a/" * 500_000, 0o755)
    engine.api.load(archive("huge", layer.bytes(), Entrypoint=["/run.sh"]))
    found = engine.api.json("POST", "/proa/advise", {"Image": "huge"})
    facts = {fact["Key"]: fact["Value"] for fact in found["Facts"]}
    assert facts["os.modules_loaded"] == ["m"] and "os.name" not in facts


@pytest.mark.parametrize(
    "body",
    [
        {}, {"Image": 3}, {"Image": "advised", "Love": 1}, {"Facts": [{"Key": "x"}]},
        {"Image": "advised", "Policy": "= ="}, {"Image": "advised", "Isolation": "pod"},
        {"Image": "advised", "Kind": "galaxy"}, {"Facts": [[]]},
        {"Image": "advised", "Facts": [{"Key": "run.ports", "Value": {"a": 1}}]},
    ],
)  # fmt: skip
def test_questions_that_make_no_sense_are_refused(engine: EngineProcess, body: Any) -> None:
    with pytest.raises(ApiError) as refused:
        engine.api.json("POST", "/proa/advise", body)
    assert refused.value.status == 400
