"""Which accelerator works here: KVM when a guest really boots under it, else TCG with the reason.

The device file alone says nothing (nested hosts offer it and then hang), so a small guest is booted
once per host kernel, QEMU and boot of the host; the answer is kept in `accelerator.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from proa.agent import Dispatcher
from proa.errors import IsolationError, ProaError, Unsupported
from proa.isolation.vm import child, qemu
from proa.isolation.vm.guest import Progress

DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 4.0
PROBE_RAM_BYTES = 128 << 20
REASON_MAXIMUM = 160


@dataclass(frozen=True)
class Accelerator:
    """The accelerator to use, and when it is not KVM, why."""

    name: str
    reason: str = ""


def choose(
    cache: Path,
    firmware: Callable[[], child.Firmware],
    dispatcher: Dispatcher,
    wanted: str = "auto",
    progress: Progress = lambda line: None,
) -> Accelerator:
    """The best accelerator that works.  `wanted` may demand one.  Raises Unsupported."""
    if wanted == "tcg":
        return Accelerator("tcg", "asked for")
    key = f"{os.uname().release} {qemu.version_key()} {_boot_id()}"
    found = _remembered(cache, key)
    if found is None:
        found = _probe(firmware, dispatcher, progress)
        cache.parent.mkdir(parents=True, exist_ok=True)
        fresh = cache.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"key": key, **asdict(found)}))
        fresh.rename(cache)
    if wanted == "kvm" and found.name != "kvm":
        raise Unsupported(f"kvm was demanded and does not work here: {found.reason}")
    return found


def _remembered(cache: Path, key: str) -> Accelerator | None:
    try:
        facts = json.loads(cache.read_text())
        if facts["key"] == key:
            return Accelerator(str(facts["name"]), str(facts["reason"]))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _probe(
    firmware: Callable[[], child.Firmware], dispatcher: Dispatcher, progress: Progress
) -> Accelerator:
    """Boot a guest under KVM and see whether its init answers in time."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Accelerator("tcg", f"cannot open '{DEVICE}': {(error.strerror or '').lower()}")
    progress("trying whether a guest boots under kvm")
    machine = qemu.Machine(PROBE_RAM_BYTES, network=False, accelerator="kvm")
    started = time.monotonic()
    try:
        with child.boot(machine, firmware(), dispatcher, seconds=PROBE_SECONDS):
            progress(f"kvm works: a guest was up in {time.monotonic() - started:.1f} seconds")
            return Accelerator("kvm")
    except IsolationError as error:
        return Accelerator("tcg", str(error)[:REASON_MAXIMUM])
    except ProaError:
        return Accelerator("tcg", f"a guest under kvm did not boot in {PROBE_SECONDS:g} seconds")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
