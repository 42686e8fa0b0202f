"""Docker Compose reads what we read: the same services of hundreds of random files, and drafts.

Each round is one app of two files, the second over the first, with variables, anchors and services
that extend others.  What Compose refuses, we may not crash on; what it takes, we read alike.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from proa.advice.compose.app import App, Service
from proa.advice.split.draft import draft
from proa.compare import appfile
from proa.errors import Invalid
from tests.conftest import need
from tests.support import case_disks
from tests.support.labelled import disks
from tests.support.paths import PEERS

COMPOSE = PEERS / "docker-compose"
ROUNDS, SERVICES = 10, 20
KNOWN = {"ONE": "1", "EMPTY": "", "WORD": "a b", "HOME": "/root", "PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def oracle() -> None:
    """Docker Compose is here."""
    need(COMPOSE.exists(), "compose", "no docker-compose: tools/newer.sh")


def compose(directory: Path, *files: str) -> tuple[int, str]:
    """Exit code and answer of `docker compose config`."""
    given = [word for name in files for word in ("-f", name)]
    done = subprocess.run(
        [COMPOSE, *given, "--profile", "*", "config", "--format", "json", "--no-path-resolution",
         "--no-env-resolution"],
        cwd=directory, env=KNOWN, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


# -- both as one ----------------------------------------------------------------------------------


def ours(service: Service) -> dict[str, Any]:
    """A service as it is compared."""
    return {
        "image": service.image, "command": list(service.command or ()),
        "entrypoint": list(service.entrypoint or ()), "user": service.user,
        "environment": dict(service.environment), "labels": dict(service.labels),
        "ports": sorted((p.target, p.protocol, p.published, p.host_ip) for p in service.ports),
        "volumes": sorted((v.type, v.source, v.target, v.read_only) for v in service.volumes),
        "cap_add": sorted(service.cap_add), "privileged": service.privileged,
        "depends_on": dict(service.depends_on), "network_mode": service.network_mode,
        "pid": service.pid, "sysctls": dict(service.sysctls), "devices": sorted(service.devices),
        "security_opt": sorted(service.security_opt), "restart": service.restart,
        "mem_limit": service.mem_limit, "replicas": service.scale, "tmpfs": list(service.tmpfs),
        "profiles": sorted(service.profiles), "platform": service.platform,
        "read_only": service.read_only, "isolation": service.isolation,
    }  # fmt: skip


def theirs(found: Mapping[str, Any]) -> dict[str, Any]:
    """The same of what Compose prints."""
    deploy = found.get("deploy") or {}
    limits = (deploy.get("resources") or {}).get("limits") or {}
    return {
        "image": found.get("image", ""), "command": found.get("command") or [],
        "entrypoint": found.get("entrypoint") or [], "user": found.get("user", ""),
        "environment": found.get("environment") or {}, "labels": found.get("labels") or {},
        "ports": sorted(
            (p["target"], p["protocol"], p.get("published", ""), p.get("host_ip", ""))
            for p in found.get("ports") or ()
        ),
        "volumes": sorted(
            (v["type"], v.get("source", ""), v["target"], v.get("read_only", False))
            for v in found.get("volumes") or ()
        ),
        "cap_add": sorted(
            name.upper().removeprefix("CAP_") for name in found.get("cap_add") or ()
        ),
        "privileged": found.get("privileged", False),
        "depends_on": {k: v["condition"] for k, v in (found.get("depends_on") or {}).items()},
        "network_mode": found.get("network_mode", ""), "pid": found.get("pid", ""),
        "sysctls": found.get("sysctls") or {},
        "devices": sorted(item["source"] for item in found.get("devices") or ()),
        "security_opt": sorted(found.get("security_opt") or ()),
        "restart": found.get("restart", ""),
        "mem_limit": int(found.get("mem_limit") or limits.get("memory") or 0),
        "replicas": deploy.get("replicas", found.get("scale", 1)),
        "tmpfs": found.get("tmpfs") or [], "profiles": sorted(found.get("profiles") or ()),
        "platform": found.get("platform", ""), "read_only": found.get("read_only", False),
        "isolation": found.get("isolation", ""),
    }  # fmt: skip


def alike(app: App, text: str) -> None:
    """Every service of the app is what Compose says."""
    found = json.loads(text.replace("$$", "$"))["services"]
    assert {service.name for service in app.services} == set(found)
    for service in app.services:
        assert ours(service) == theirs(found[service.name]), service.name


# -- random files ---------------------------------------------------------------------------------

Make = Callable[[random.Random], Any]
WORDS = ("a", "b c", "${ONE}", "${NONE:-d}", "${EMPTY:-e}x", "$$f", "1.10", "yes", "0x1", "12:30",
         "${ONE:+g}", "'q'", "#h", "é", "${NONE-${WORD}}", "a=b", "-")  # fmt: skip


def word(random: random.Random) -> str:
    """A text that may mean something else to others."""
    return random.choice(WORDS)


def some(*items: Any) -> Make:
    """A few of these, in any order."""
    return lambda random: random.sample(items, random.randint(1, len(items)))


def either(*items: Any) -> Make:
    """One of these."""
    return lambda random: random.choice(items)


def pairs(random: random.Random) -> Any:
    """Variables or labels, in both ways to write them."""
    found = {name: word(random) for name in random.sample("ABCDE", random.randint(1, 4))}
    return found if random.random() < 0.5 else [f"{key}={value}" for key, value in found.items()]


KEYS: dict[str, Make] = {
    "image": either("nginx", "registry.example:5000/a/b:1@sha256:" + "0" * 64, "a:${ONE}"),
    "command": either("sh -c 'a b'", ["a", "b c"], "x ${ONE} $$HOME", [], "one\\ two"),
    "entrypoint": either("/bin/x --y", ["/bin/x"], "a \"b c\""),
    "user": either("1000", "1000:1000", "${ONE}", "root"),
    "environment": pairs, "labels": pairs,
    "ports": some("80", "8080:80", "9090-9091:90-91", "127.0.0.1:1:1/udp", "127.0.0.1::53/udp",
                  "[::1]:6001:6001", "6000-6002:60", "22:22", 81,
                  {"target": 443, "published": "8443"}),
    "volumes": some("data:/a", "data:/b:ro", "/host:/c", "./here:/d:ro", "/e", "~/x:/f", "more:/a",
                    {"type": "bind", "source": "/g", "target": "/g", "read_only": True},
                    {"type": "tmpfs", "target": "/h"}),
    "cap_add": some("NET_ADMIN", "SYS_TIME", "ALL"),
    "privileged": either(True, False, "true"),
    "depends_on": lambda random: random.choice(
        [["other"], {"other": {"condition": "service_healthy"}}]),
    "network_mode": either("host", "none"), "pid": either("host"),
    "sysctls": either({"net.core.somaxconn": 1024}, ["net.ipv4.ip_forward=1"]),
    "devices": some("/dev/a", "/dev/b:/dev/c", "/dev/d:/dev/d:rw"),
    "restart": either("always", "no", "on-failure:3"),
    "mem_limit": either("64m", "1.5g", 1048576, "300kb"),
    "deploy": either({"replicas": 3}, {"mode": "replicated"}),
    "tmpfs": either("/run", ["/run", "/tmp"]), "profiles": some("x", "y"),
    "platform": either("linux/arm64"), "read_only": either(True),
    "isolation": either("vm", "container"),
}  # fmt: skip


def body(random: random.Random, most: int) -> dict[str, Any]:
    """Some keys of a service."""
    chosen = random.sample(sorted(KEYS), random.randint(1, most))
    return {key: KEYS[key](random) for key in chosen}


def write(directory: Path, random: random.Random) -> list[str]:
    """Two files of one app."""
    names = [f"s{number}" for number in range(SERVICES)]
    first: dict[str, Any] = {name: {"image": "i", **body(random, 9)} for name in names}
    for number, name in enumerate(names[1:], 1):
        if random.random() < 0.3:
            first[name]["extends"] = random.choice(
                [names[number - 1], {"service": names[number - 1]}]
            )
            first[name].pop("network_mode", None)
    first["other"] = {"image": "other"}
    second = {name: body(random, 4) for name in random.sample(names, 5)}
    volumes: dict[str, Any] = {"data": {}, "more": {}}
    (directory / "a.yaml").write_text(json.dumps({"services": first, "volumes": volumes}))
    (directory / "b.yaml").write_text(json.dumps({"services": second}))
    return ["a.yaml", "b.yaml"]


def test_random_apps_are_read_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = refused = 0
    for seed in range(ROUNDS):
        directory = tmp_path / str(seed)
        directory.mkdir()
        monkeypatch.chdir(directory)
        files = write(directory, random.Random(seed))
        code, text = compose(directory, *files)
        try:
            app = appfile.read(files, KNOWN)
        except Invalid as error:
            assert code != 0, f"{seed}: Compose takes what we refuse: {error}"
            refused += 1
            continue
        if code == 0:
            compared += len(app.services)
            alike(app, text)
    assert compared >= ROUNDS * SERVICES * 0.8, (compared, refused)


FIXED = """
x-common: &common
  restart: always
  environment: &env {A: "1", B: "${B:-two}"}
services:
  web:
    <<: *common
    image: nginx:1.10
    ports: [22:22, "80"]
    environment: {<<: *env, C: ~}
    healthcheck: {test: curl, interval: 1m30s}
    stop_grace_period: 1m
  job:
    build: {context: ., args: [X=1]}
    extends: {file: more.yaml, service: base}
    ulimits: {nofile: 10}
    security_opt: ["no-new-privileges:true"]
    deploy: {resources: {limits: {memory: 64M}}}
    logging: {driver: json-file}
"""
OVER = """
services:
  web:
    restart: !reset null
    ports: !override ["443:443"]
  job: {command: !reset [], security_opt: ["seccomp:unconfined"]}
"""


def test_what_only_yaml_can_say_is_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(FIXED)
    (tmp_path / "b.yaml").write_text(OVER)
    (tmp_path / "more.yaml").write_text("services: {base: {image: b, command: x y, user: '5'}}")
    code, text = compose(tmp_path, "a.yaml", "b.yaml")
    assert code == 0, text
    alike(appfile.read(["a.yaml", "b.yaml"], KNOWN), text)


@pytest.mark.parametrize(
    "text",
    [
        "services: {s: {image: a, prots: [80]}}", "services: {s: {image: a, ports: [x]}}",
        "services: {s: {image: a, privileged: [1]}}", "services: {s: {extends: s}}",
        "services: {s: {image: 'a${'}}", "services: {s: {image: '${NO:?}'}}", "services: [a]",
        "a: 1\na: 2", "services: {s: {image: a, mem_limit: lots}}", "",
        "services: {s: {image: a, depends_on: {t: {condition: c}}}, t: {image: t}}",
    ],
)  # fmt: skip
def test_what_compose_refuses_we_refuse(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    assert compose(tmp_path, "a.yaml")[0] != 0
    with pytest.raises(Invalid, match=r"a\.yaml"):
        appfile.read([str(path)], KNOWN)


@pytest.mark.parametrize("case", disks.CASES, ids=lambda case: case.name)
def test_drafts_are_apps_to_compose(tmp_path: Path, case: Any) -> None:
    machine = case_disks.by_debugfs(case_disks.make(case, tmp_path / "old.img", tmp_path), tmp_path)
    (tmp_path / "a.yaml").write_text(draft(machine, "old.img"))
    code, text = compose(tmp_path, "a.yaml")
    assert code == 0, text
    app = appfile.read([str(tmp_path / "a.yaml")], KNOWN)
    if app.services:
        alike(app, text)
