"""Held-out images: drawn by seed from kinds of subjects, each with its label and its reason.

A kind says what makes the label right; everything else about it is chance, and some of that speaks
for the other form.  No rule is changed for what a draw shows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from proa.advice.facts import Value
from tests.support import programs as p
from tests.support.cases import CONTAINER, VM, Case, File, Tree
from tests.support.labelled import images as labels

NAMES = (
    "billing",
    "search",
    "thumbs",
    "gateway",
    "mailer",
    "geo",
    "rates",
    "feed",
    "quota",
    "auth",
)
DAEMONS = ("nginx", "apache2", "mysql", "postgresql", "sshd", "cron", "rsyslog", "named", "slapd",
           "dovecot", "postfix", "smbd", "cups", "vsftpd", "tomcat9", "jenkins")  # fmt: skip
RELEASES = (("debian", "12"), ("debian", "11"), ("ubuntu", "22.04"), ("rocky", "9"),
            ("alpine", "3.20"), ("opensuse-leap", "15.6"))  # fmt: skip
SET_USER_ID = ("su", "passwd", "chsh", "chfn", "newgrp", "gpasswd", "umount", "sudo")


def _ports(random: Random, most: int) -> list[str]:
    return [f"{random.randrange(1024, 60000)}/tcp" for _ in range(random.randint(0, most))]


def _around(random: Random) -> Tree:
    """What may lie in any image and decides nothing."""
    tree: dict[str, Any] = dict(p.shell()) if random.random() < 0.7 else {}
    if random.random() < 0.7:
        tree |= p.release(*random.choice(RELEASES))
    if random.random() < 0.4:
        chosen = random.sample(SET_USER_ID, random.randint(1, len(SET_USER_ID)))
        tree |= {f"usr/bin/{name}": File(b"#!/bin/sh\n", 0o4755) for name in chosen}
    if random.random() < 0.3:
        tree |= {f"usr/share/doc/{name}/copyright": "free\n" for name in random.sample(NAMES, 3)}
    return tree


def _case(label: str, principle: str, why: str, tree: Tree, stated: dict[str, Value] | None = None,
          **config: Any) -> Case:  # fmt: skip
    return Case("", "image", label, principle, why, tree, config=config, stated=stated or {})


def service(random: Random) -> Case:
    """One program that serves."""
    name = random.choice(NAMES)
    config: dict[str, Any] = {"Cmd": [f"/app/{name}", "serve"], "ExposedPorts": _ports(random, 3)}
    if random.random() < 0.5:
        config["User"] = str(random.randrange(1000, 60000))
    if random.random() < 0.5:
        config["Volumes"] = [f"/var/lib/{name}"]
    stated: dict[str, Value] = random.choice(
        [{}, {}, {"stated.trust": "known"}, {"stated.change": "monthly"}]
    )
    program = random.choice([p.static(), p.dynamic()])
    tree = {**_around(random), f"app/{name}": program}
    return _case(CONTAINER, labels.PROGRAM, "one program", tree, stated, **config)


def job(random: Random) -> Case:
    """A piece of work that ends."""
    tool = random.choice(["make", "mvn", "go", "npm", "terraform", "pg_dump", "rsync", "cargo"])
    stated: dict[str, Value] = {"stated.lifetime": random.choice(["seconds", "minutes"])}
    tree = {**p.shell(), **_around(random), f"usr/bin/{tool}": p.dynamic()}
    command = [tool, "build"] if random.random() < 0.5 else ["sh", "-c", f"cd /src && {tool} all"]
    return _case(CONTAINER, labels.PASSING, "work that ends", tree, stated, Cmd=command)


def couple(random: Random) -> Case:
    """Two programs under a supervisor."""
    tree = {**_around(random), **p.supervised(*random.sample(DAEMONS, 2))}
    command = random.choice([["supervisord", "-n"], ["/usr/bin/supervisord"]])
    ports = _ports(random, 2)
    return _case(CONTAINER, labels.SEVERAL, "two programs", tree, Cmd=command, ExposedPorts=ports)


def budgeted(random: Random) -> Case:
    """One that must cost next to nothing."""
    stated: dict[str, Value] = random.choice(
        [{"stated.start_budget_ms": random.randrange(20, 120)},
         {"stated.memory_budget_bytes": random.randrange(4, 20) * 1_000_000}]
    )  # fmt: skip
    tree = {**_around(random), "handler": p.static()}
    return _case(CONTAINER, labels.PASSING, "a tight budget", tree, stated, Cmd=["/handler"])


def server(random: Random) -> Case:
    """A system with its daemons."""
    services = random.sample(DAEMONS, random.randint(2, 7))
    tree = {**_around(random), **p.systemd(*services)}
    config: dict[str, Any] = {"ExposedPorts": _ports(random, 4)}
    if random.random() < 0.7:
        config["Cmd"] = [random.choice(["/sbin/init", "/lib/systemd/systemd"])]
    if random.random() < 0.3:
        config["Healthcheck"] = {"Test": ["CMD", "true"]}
    return _case(VM, labels.SYSTEM, f"{len(services)} daemons under systemd", tree, **config)


def stranger(random: Random) -> Case:
    """Somebody else's code, whatever it is."""
    made = random.choice([service, couple, job])(random)
    stated = {**made.stated, "stated.trust": "untrusted"}
    return replace(made, label=VM, principle=labels.TRUST, why="a stranger's", stated=stated)


def other(random: Random) -> Case:
    """A program of another system, or that needs another kernel."""
    program = random.choice(
        [p.windows(), p.elf(62, 9, "/libexec/ld-elf.so.1"), p.needing((90, random.randrange(9), 0)),
         p.elf(62, 0, "/usr/libexec/ld.elf_so")]
    )  # fmt: skip
    config: dict[str, Any] = {"Cmd": ["/app/main"], "ExposedPorts": _ports(random, 2)}
    return _case(VM, labels.KERNEL, "of another system", {"app/main": program}, **config)


def powerful(random: Random) -> Case:
    """A program whose work is the kernel's."""
    name = random.choice(["dockerd", "containerd", "charon", "openvpn", "kubelet", "libvirtd"])
    tree = {**_around(random), f"usr/sbin/{name}": p.dynamic()}
    return _case(VM, labels.POWER, f"{name} works on the kernel", tree, Cmd=[name],
                 ExposedPorts=_ports(random, 2))  # fmt: skip


def lasting(random: Random) -> Case:
    """A database that is there for years."""
    path = random.choice(["usr/sbin/mysqld", "usr/bin/mongod", "usr/sbin/slapd",
                          "usr/lib/postgresql/15/bin/postgres"])  # fmt: skip
    stated: dict[str, Value] = {
        "stated.lifetime": random.choice(["years", "permanent"]),
        "stated.state": "/var/lib/data", "stated.change": random.choice(["never", "yearly"]),
    }  # fmt: skip
    tree = {**_around(random), path: p.dynamic()}
    return _case(VM, labels.STAYING, "data for years", tree, stated, Cmd=[f"/{path}"],
                 Volumes=["/var/lib/data"], ExposedPorts=["5432/tcp"])  # fmt: skip


KINDS: tuple[Callable[[Random], Case], ...] = (
    service, job, couple, budgeted, server, stranger, other, powerful, lasting,
)  # fmt: skip


def draw(random: Random, number: int) -> Case:
    """The next case; kinds take turns, so that each is drawn."""
    made = KINDS[number % len(KINDS)](random)
    return replace(made, name=f"drawn-image-{number}")
