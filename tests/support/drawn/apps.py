"""Held-out services of app files: drawn by seed, the neighbours and most of the keys by chance."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.support.cases import CONTAINER, VM, Case
from tests.support.labelled.apps import HOST
from tests.support.labelled.images import KERNEL, PASSING, POWER, PROGRAM, STAYING, TRUST

NAMES = ("orders", "mail", "search", "images", "rates", "audit", "chat", "maps", "login", "stats")
Body = dict[str, Any]
Drawn = tuple[str, str, str, Body]


def _around(random: Random) -> Body:
    """What any service may say, and what decides nothing."""
    body: Body = {"image": f"example/{random.choice(NAMES)}:{random.randrange(1, 40)}"}
    if random.random() < 0.6:
        body["ports"] = [f"{random.randrange(1024, 60000)}:{random.randrange(80, 9000)}"]
    if random.random() < 0.5:
        body["environment"] = [f"LEVEL={random.randrange(9)}", "EMPTY="]
    if random.random() < 0.4:
        body["restart"] = random.choice(["always", "unless-stopped", "on-failure"])
    if random.random() < 0.4:
        body["user"] = str(random.randrange(1, 60000))
    if random.random() < 0.4:
        body["volumes"] = ["kept:/var/lib/kept"]
    if random.random() < 0.3:
        body["healthcheck"] = {"test": ["CMD", "true"], "interval": "30s"}
    return body


def plain(random: Random) -> Drawn:
    """One that asks for nothing."""
    more: Body = random.choice(
        [{}, {"cap_drop": ["ALL"]}, {"read_only": True}, {"mem_limit": "256m"},
         {"cap_add": ["NET_BIND_SERVICE"]}]
    )  # fmt: skip
    return CONTAINER, PROGRAM, "it asks for nothing", {**_around(random), **more}


def hosts(random: Random) -> Drawn:
    """One whose work is the host's."""
    more: Body = random.choice([
        {"volumes": ["/var/run/docker.sock:/run/docker.sock:ro"]}, {"network_mode": "host"},
        {"devices": ["/dev/ttyUSB0"]}, {"pid": "host", "volumes": ["/proc:/host/proc:ro"]},
    ])  # fmt: skip
    body = {key: value for key, value in _around(random).items() if key != "ports"}
    return CONTAINER, HOST, f"it asks for {json.dumps(more)}", {**body, **more}


def stranger(random: Random) -> Drawn:
    """Somebody else's code."""
    more: Body = random.choice([{"x-proa-trust": "untrusted"}, {"x-proa": {"trust": "untrusted"}},
                                {"labels": {"x-proa-trust": "untrusted"}}])  # fmt: skip
    return VM, TRUST, "it is not trusted", {**_around(random), **more}


def powerful(random: Random) -> Drawn:
    """One that would have the host's kernel in its hands."""
    more: Body = random.choice([
        {"privileged": True}, {"privileged": "true", "cap_add": ["ALL"]},
        {"cap_add": ["SYS_ADMIN"], "security_opt": ["seccomp=unconfined"]},
    ])  # fmt: skip
    return VM, POWER, f"it asks for {json.dumps(more)}", {**_around(random), **more}


def other(random: Random) -> Drawn:
    """One that a kernel of its own must be made for."""
    more: Body = random.choice([
        {"sysctls": [f"kernel.{random.choice(['pid_max', 'panic', 'sysrq'])}=1"]},
        {"cap_add": ["CAP_SYS_MODULE"]}, {"platform": "windows/amd64"},
        {"x-proa-compliance": "a rule"},
    ])  # fmt: skip
    return VM, KERNEL, f"it asks for {json.dumps(more)}", {**_around(random), **more}


def passing(random: Random) -> Drawn:
    """Many of it, or one that ends."""
    more: Body = random.choice([
        {"deploy": {"replicas": random.randrange(5, 60)}},
        {"x-proa-lifetime": random.choice(["seconds", "minutes"])},
        {"deploy": {"mode": "replicated-job"}},
    ])  # fmt: skip
    return CONTAINER, PASSING, f"it says {json.dumps(more)}", {**_around(random), **more}


def lasting(random: Random) -> Drawn:
    """Data for years."""
    more: Body = {
        "image": random.choice(["mysql:8", "mongo:7", "postgres:16", "mariadb"]),
        "volumes": ["kept:/var/lib/data"], "x-proa-state": "/var/lib/data",
        "x-proa-lifetime": random.choice(["years", "permanent"]),
        "x-proa-change": random.choice(["never", "yearly"]),
    }  # fmt: skip
    return VM, STAYING, "data for years", {**_around(random), **more}


KINDS: tuple[Callable[[Random], Drawn], ...] = (
    plain, powerful, hosts, stranger, passing, other, lasting,
)  # fmt: skip


def draw(random: Random, number: int) -> Case:
    """The next case; JSON is YAML, too."""
    label, principle, why, body = KINDS[number % len(KINDS)](random)
    names = random.sample(NAMES, random.randint(1, 4))
    services = {name: _around(random) for name in names[1:]} | {names[0]: body}
    text = json.dumps({"services": services, "volumes": {"kept": {}}}, indent=1)
    name = f"drawn-app-{number}"
    return Case(name, "app", label, principle, why, compose=text, service=names[0])
