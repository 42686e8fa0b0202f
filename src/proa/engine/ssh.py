"""Logging in to whole machines by ssh: the engine's own key, and whom to believe it is.

Host keys are read through our agent, whose channel nobody else is on, so that the first connection
needs no trust.  Without an agent the first key seen is remembered.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.errors import Conflict, Unsupported
from proa.host import files, process
from proa.isolation.vm import inside

HOST_KEYS = tuple(f"/etc/ssh/ssh_host_{kind}_key.pub" for kind in ("ed25519", "ecdsa", "rsa"))
HOST_KEY_MAXIMUM = 8 << 10
_KINDS = ("ssh-", "ecdsa-")


@dataclass(frozen=True)
class Way:
    """How to reach a machine: paths are of this host; `known` says its host keys are certain."""

    address: str
    key: Path
    known_hosts: Path
    known: bool


def public_key(core: Core) -> str:
    """The engine's key, made on its first use; empty on a host without ssh-keygen."""
    if shutil.which("ssh-keygen") is None:
        return ""
    key = _key(core)
    with files.Lock(core.config.root / "ssh.lock"):
        if not key.with_suffix(".pub").exists():
            key.unlink(missing_ok=True)
            words = ["-q", "-t", "ed25519", "-N", "", "-C", "proa", "-f", str(key)]
            process.run(["ssh-keygen", *words])
    return key.with_suffix(".pub").read_text().strip()


def way(core: Core, instance: Instance) -> Way:
    """How to log in to a machine.  Raises Conflict when it does not run, Unsupported for others."""
    if not instance.spec.hardware.disk:
        raise Unsupported(
            f"instance '{instance.name}' has no system to log in to by ssh",
            hint=f"use 'proa exec -it {instance.name} sh'",
        )
    if instance.running is None or instance.state != states.RUNNING:
        raise Conflict(f"Container {instance.name} is not running")
    link = core.networks.link_of(instance.id)
    if link is None:
        raise Conflict(f"instance '{instance.name}' has no network")
    if not public_key(core):
        raise Unsupported("there is no ssh on this host", hint="install 'openssh-client'")
    address = link.address.partition("/")[0]
    known_hosts = core.directory(instance.id) / "known_hosts"
    known = _learn(instance, address, known_hosts)
    return Way(address, _key(core), known_hosts, known)


def _learn(instance: Instance, address: str, known_hosts: Path) -> bool:
    """Write down the machine's host keys as its agent tells them."""
    running = instance.running
    try:
        if running is None:
            return False
        agent, _ = running.enter()
        contents = inside.read(agent, HOST_KEYS)
    except (Conflict, Unsupported):
        return False
    lines = [line for content in contents if (line := _host_key(address, content))]
    if lines:
        files.atomic_write(known_hosts, "".join(lines).encode())
    return bool(lines)


def _host_key(address: str, content: str) -> str:
    """A line of known_hosts from what the machine says is its key; empty for anything else."""
    words = content[:HOST_KEY_MAXIMUM].split()
    plain = content.isascii() and len(words) >= 2 and words[0].startswith(_KINDS)
    return f"{address} {words[0]} {words[1]}\n" if plain else ""


def _key(core: Core) -> Path:
    return core.config.root / "ssh_key"
