"""What a machine does once its root is mounted: a launch plan for `native/machine.c`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from proa import plan
from proa.errors import Invalid
from proa.image.machine import tree

ROOT = "/mnt/root"  # native/machine.c
_RESOLVER = "/dev/.resolv.conf"  # native/machine.c
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_INITS = ("systemd", "openrc-init", "runit-init", "s6-linux-init")
_KINDS = ("auto", "image", "program")


@dataclass(frozen=True)
class Program:
    """`become` the image's own init or `run` its one program; a description for people."""

    how: str
    steps: tuple[plan.Step, ...]
    says: str


def of(root: int, config: Mapping[str, Any], hostname: str, kind: str = "auto") -> Program:
    """What to do with this image.  Raises Invalid when it has neither an init nor a command."""
    if kind not in _KINDS:
        raise Invalid(f"unknown init '{kind}'", hint=f"use one of: {', '.join(_KINDS)}")
    init = own_init(root) if kind != "program" else ""
    arguments = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if kind == "image" and not init:
        raise Invalid("the image has no init of its own", hint="leave out --init")
    if init:
        return Program("become", _become(hostname), f"the image's own init '{init}'")
    if not arguments:
        raise Invalid(
            "the image has neither an init nor a command", hint="give it a CMD, or systemd"
        )
    return Program("run", _run(config, arguments, hostname), f"'{' '.join(arguments)}'")


def own_init(root: int) -> str:
    """The name of a real init at /sbin/init; a tool box of that name needs its table."""
    name = tree.resolved(root, "sbin/init")
    if name in _INITS:
        return name
    return name if name and tree.read(root, "etc/inittab", 1 << 20) is not None else ""


def _become(hostname: str) -> tuple[plan.Step, ...]:
    named = (plan.Hostname(hostname),) if hostname else ()
    environment = (plan.Environment("HOME=/"), plan.Environment("TERM=linux"))
    return (*named, plan.Root(ROOT), *environment, plan.Exec(("/sbin/init",)))


def _run(config: Mapping[str, Any], arguments: list[str], hostname: str) -> tuple[plan.Step, ...]:
    hostname = hostname or "machine"
    settings = {"HOSTNAME": hostname, "PATH": _PATH.partition("=")[2], "TERM": "linux"}
    for item in config.get("Env") or ():
        key, _, value = str(item).partition("=")
        settings[key] = value
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n"
    quiet = "nosuid,noexec,nodev"
    return (
        plan.Hostname(hostname),
        plan.MountFs("devpts", "devpts", "/dev/pts", "nosuid,noexec", "ptmxmode=0666,gid=5"),
        plan.MountFs("tmpfs", "shm", "/dev/shm", quiet, "mode=1777"),
        plan.MountFs("mqueue", "mqueue", "/dev/mqueue", quiet),
        plan.Root(ROOT),
        plan.Cover("/etc/hosts", "0644", hosts),
        plan.Cover("/etc/hostname", "0644", f"{hostname}\n"),
        plan.Attach(_RESOLVER, "/etc/resolv.conf"),
        *(plan.Environment(f"{key}={value}") for key, value in settings.items() if key),
        plan.Umask(),
        plan.WorkDirectory(str(config.get("WorkingDir") or "/"), "make"),
        plan.User(str(config.get("User") or "")),
        plan.Exec(tuple(os.fspath(str(word)) for word in arguments)),
    )
