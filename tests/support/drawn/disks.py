"""Held-out disks: drawn by seed from kinds of machines, what is on them by chance."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.support import programs as p
from tests.support.cases import CONTAINER, VM, Case, Tree
from tests.support.drawn.images import DAEMONS, RELEASES
from tests.support.labelled.disks import strange
from tests.support.labelled.images import KERNEL, PROGRAM, SYSTEM


def _around(random: Random) -> Tree:
    tree: dict[str, Any] = dict(p.release(*random.choice(RELEASES)))
    if random.random() < 0.5:
        tree["etc/hostname"] = f"host{random.randrange(99)}\n"
    if random.random() < 0.5:
        tree["etc/cron.d/own"] = "0 4 * * * root /usr/local/bin/backup\n"
    if random.random() < 0.5:
        tree["etc/sysctl.d/90-own.conf"] = "net.core.somaxconn=1024\n"
    return tree


def server(random: Random) -> Case:
    """A system with its daemons, with or without its kernel."""
    services = random.sample(DAEMONS, random.randint(2, 7))
    tree = {**_around(random), **p.systemd(*services)}
    if random.random() < 0.7:
        tree[f"boot/vmlinuz-{random.randint(4, 6)}.{random.randrange(19)}.0"] = "kernel"
    return Case("", "disk", VM, SYSTEM, f"{len(services)} daemons under systemd", tree)


def other(random: Random) -> Case:
    """Another system's."""
    kind = random.choice(["a5", "a6", "a9", "07"])
    return strange("", kind, f"a partition of type {kind}")


def loader(random: Random) -> Case:
    """A system that loads modules."""
    module = random.choice(["wireguard", "nfsd", "vhost_net", "target_core_mod", "zfs"])
    tree = {**_around(random), **p.systemd(*random.sample(DAEMONS, random.randint(1, 3)))}
    tree |= {"etc/modules": f"# at boot\n{module}\n"}
    return Case("", "disk", VM, KERNEL, f"it loads {module}", tree)


def program(random: Random) -> Case:
    """A file system of one program."""
    tree = {**_around(random), "app/main": random.choice([p.static(), p.dynamic()])}
    return Case("", "disk", CONTAINER, PROGRAM, "one program, no init", tree)


KINDS: tuple[Callable[[Random], Case], ...] = (server, other, program, loader)


def draw(random: Random, number: int) -> Case:
    """The next case."""
    made = KINDS[number % len(KINDS)](random)
    name = f"drawn-disk-{number}"
    return Case(name, "disk", made.label, made.principle, made.why, made.tree, config=made.config)
