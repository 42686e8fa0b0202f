"""What an installed QEMU can do: asked of the program itself, once, by QMP on a machine of nothing.

The answers are kept beside the engine's other vm files and asked again when the program changes, so
a start reads one small file at most.  Nobody compares versions: options came (`mapped-ram` in 9.0,
`reconnect-ms` in 9.2) and went (`-no-hpet` in 8.0, `reconnect` in 10.0), and distributions patch.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from proa.errors import HostError, IsolationError, ProaError
from proa.host import files
from proa.isolation.vm import architectures
from proa.isolation.vm.architectures import Architecture
from proa.isolation.vm.qmp import Qmp

FORMAT = 2  # of the kept file
WORDS_MAXIMUM = 400
ACCELERATORS = ("tcg", "kvm")
NEEDED = (
    "virtio-blk-pci", "virtio-serial-pci", "virtserialport", "virtio-net-pci", "virtio-9p-pci",
    "pcie-pci-bridge",
)  # fmt: skip
DEVICES = (
    *NEEDED, "virtio-mem-pci", "virtio-rng-pci", "virtio-scsi-pci", "vhost-user-fs-pci", "nvme",
    "vmgenid", "e1000", "rtl8139", "VGA", "virtio-vga", "virtio-gpu-pci", "ramfb", "tpm-tis",
    "tpm-tis-device", "qemu-xhci", "usb-tablet", "usb-kbd",
)  # fmt: skip


@dataclass(frozen=True)
class Abilities:
    """Facts of one QEMU program: names as it spells them."""

    version: str
    machines: frozenset[str]
    deprecated: frozenset[str]  # machines that are going to be removed
    machine_options: frozenset[str]  # of the board image vms have
    accelerators: frozenset[str]  # compiled in, which says nothing of the host
    devices: frozenset[str]  # of DEVICES
    backend_options: frozenset[str]  # of memory-backend-file
    chardev_options: frozenset[str]
    migration: frozenset[str]  # capabilities
    cpus: frozenset[str]
    sandbox: bool

    def known(self, options: tuple[str, ...]) -> tuple[str, ...]:
        """Those of `NAME=VALUE` whose name the board understands."""
        return tuple(word for word in options if word.partition("=")[0] in self.machine_options)

    def missing(self) -> list[str]:
        """What templates and clones cannot do without, and is not there."""
        needed = {"device": NEEDED, "migration capability": ("x-ignore-shared",)}
        have = {"device": self.devices, "migration capability": self.migration}
        return [
            f"{kind} '{name}'" for kind, names in needed.items() for name in names
            if name not in have[kind]
        ]  # fmt: skip


def of(architecture: Architecture, cache: Path) -> Abilities:
    """What a board's QEMU can do, from `cache` (a directory) unless it is another program now.

    Raises IsolationError when it cannot be asked.
    """
    path = cache / f"qemu-{architecture.name}.json"
    key = f"{FORMAT} {architecture.machine} {architectures.version_key(architecture.name)}"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            return _loaded(kept["abilities"])
    found = ask(architecture)
    facts = {
        name: sorted(value) if isinstance(value, frozenset) else value
        for name, value in asdict(found).items()
    }
    files.atomic_write(path, json.dumps({"key": key, "abilities": facts}).encode())
    return found


def _loaded(facts: dict[str, Any]) -> Abilities:
    values: dict[str, Any] = {
        name: frozenset(value) if isinstance(value, list) else value
        for name, value in facts.items()
    }
    return Abilities(**values)


def ask(architecture: Architecture) -> Abilities:
    """Run the program once and ask it.  Raises IsolationError."""
    with _monitor(architecture) as control:
        version = control.execute("query-version")["qemu"]
        machines = _rows(control.execute("query-machines"))
        names = {str(row["name"]) for row in machines}
        names |= {str(row["alias"]) for row in machines if "alias" in row}
        kind = next(
            (
                row["name"]
                for row in machines
                if architecture.machine in (row["name"], row.get("alias"))
            ),
            "",
        )
        if not kind:
            raise IsolationError(
                f"'{architecture.program}' has no machine '{architecture.machine}'"
            )
        return Abilities(
            version=".".join(str(version[part]) for part in ("major", "minor", "micro")),
            machines=frozenset(names),
            deprecated=frozenset(str(row["name"]) for row in machines if row.get("deprecated")),
            machine_options=_properties(control, f"{kind}-machine"),
            accelerators=frozenset(
                name for name in ACCELERATORS if _properties(control, f"{name}-accel")
            ),
            devices=frozenset(name for name in DEVICES if _properties(control, name)),
            backend_options=_properties(control, "memory-backend-file"),
            chardev_options=frozenset(_parameters(control, "chardev")),
            migration=frozenset(
                str(row["capability"])
                for row in _rows(control.execute("query-migrate-capabilities"))
            ),
            cpus=frozenset(
                str(row["name"]) for row in _rows(control.execute("query-cpu-definitions"))
            ),
            sandbox=bool(_parameters(control, "sandbox")),
        )


@contextlib.contextmanager
def _monitor(architecture: Architecture) -> Iterator[Qmp]:
    """QMP of a machine without anything; the program is gone afterwards."""
    ours, theirs = socket.socketpair()
    with theirs, tempfile.TemporaryFile() as said:
        argv = (
            str(architecture.program), "-M", "none", "-nodefaults", "-no-user-config",
            "-display", "none", "-chardev", f"socket,id=q,fd={theirs.fileno()}",
            "-mon", "chardev=q,mode=control",
        )  # fmt: skip
        try:
            process = subprocess.Popen(
                argv, pass_fds=(theirs.fileno(),), cwd="/", env={}, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise HostError(
                f"cannot run '{architecture.program}': {os.strerror(error.errno or 0)}",
                hint=f"install '{architecture.package}'",
            ) from error
        theirs.close()
        control = Qmp(ours)
        try:
            control.execute("qmp_capabilities")
            yield control
        except ProaError as error:
            process.kill()
            process.wait()
            words = os.pread(said.fileno(), WORDS_MAXIMUM, 0).decode(errors="replace").split()
            raise IsolationError(
                f"'{architecture.program}' cannot be asked what it can: {error.message}"
                + (f"; it said: {' '.join(words)}" if words else "")
            ) from error
        finally:
            control.close()
            process.kill()
            process.wait()


def _rows(answer: Any) -> list[dict[str, Any]]:
    return [row for row in answer if isinstance(row, dict)] if isinstance(answer, list) else []


def _properties(control: Qmp, kind: str) -> frozenset[str]:
    """Of one type; nothing when there is none of that name.

    Listing all types instead would load every module there is, and end QEMU at a broken one.
    """
    try:
        rows = _rows(control.execute("qom-list-properties", {"typename": kind}))
    except IsolationError:
        return frozenset()
    return frozenset(str(row["name"]) for row in rows)


def _parameters(control: Qmp, option: str) -> list[str]:
    """What a command line option takes; nothing when there is none of that name."""
    try:
        rows = _rows(control.execute("query-command-line-options", {"option": option}))
    except IsolationError:
        return []
    return [str(item["name"]) for row in rows for item in _rows(row.get("parameters"))]
