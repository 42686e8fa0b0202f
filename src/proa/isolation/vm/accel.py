"""Which accelerator works here: KVM when a guest really boots under it, else TCG with the reason.

The device file alone says nothing (nested hosts offer it and then hang), so a small guest is booted
once per host kernel, QEMU and boot of the host; the answer is kept in `accelerator.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from proa.agent import Dispatcher
from proa.errors import IsolationError, ProaError, Unsupported
from proa.isolation.vm import architectures, child, qemu
from proa.isolation.vm.guest import Progress

DEVICE = Path("/dev/kvm")
PROBE_SECONDS = 4.0
PROBE_RAM_BYTES = 128 << 20
REASON_MAXIMUM = 160
KVM, TCG, AUTO = "kvm", "tcg", "auto"
NESTED_HINT = (
    "this host is a virtual machine itself: its own host has to allow nested virtualization"
)


@dataclass(frozen=True)
class Accelerator:
    """The accelerator to use, and when it is not KVM, why, and what may help."""

    name: str
    reason: str = ""
    hint: str = "leave the choice with 'auto', or ask for 'tcg'"


def decide(policy: str, wanted: str, best: Accelerator) -> Accelerator:
    """The accelerator for an instance: what it wants, within what the engine's owner demands.

    `policy` (the configuration's `vm.accelerator`) and `wanted` are `auto`, `kvm` or `tcg`;
    `wanted` may be empty.  Nothing falls back silently.  Raises Unsupported.
    """
    wanted = AUTO if wanted == "" else wanted
    if AUTO not in (policy, wanted) and policy != wanted:
        raise Unsupported(
            f"the accelerator '{wanted}' was asked for, and this engine's policy is '{policy}'",
            hint="its owner may change 'accelerator' in the configuration's [vm]",
        )
    demanded = wanted if policy == AUTO else policy
    if demanded == KVM and best.name != KVM:
        raise Unsupported(
            f"kvm was demanded and does not work here: {best.reason}",
            hint=best.hint,
        )
    if demanded == TCG:
        return Accelerator(TCG, "asked for" if policy == AUTO else "the engine's policy")
    return best


def is_nested(cpuinfo: str = "") -> bool:
    """Whether this host is a virtual machine, as its processor says (x86; elsewhere unknown)."""
    text = cpuinfo or Path("/proc/cpuinfo").read_text()
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return "hypervisor" in flags.split()


def choose(
    cache: Path,
    firmware: Callable[[], child.Firmware],
    dispatcher: Dispatcher,
    progress: Progress = lambda line: None,
) -> Accelerator:
    """The best accelerator that works, tried once and remembered in `cache`."""
    key = _key()
    found = _remembered(cache, key)
    if found is None:
        found = _probe(firmware, dispatcher, progress)
        if found.name != KVM and is_nested():
            found = replace(found, hint=NESTED_HINT)
        cache.parent.mkdir(parents=True, exist_ok=True)
        fresh = cache.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"key": key, **asdict(found)}))
        fresh.rename(cache)
    return found


def known(cache: Path) -> Accelerator | None:
    """What `choose` found last, when it is still right; nothing is tried."""
    return _remembered(cache, _key())


def _key() -> str:
    """What its finding depends on."""
    return f"{os.uname().release} {architectures.version_key(architectures.HOST)} {_boot_id()}"


def _remembered(cache: Path, key: str) -> Accelerator | None:
    try:
        facts = json.loads(cache.read_text())
        if facts["key"] == key:
            return Accelerator(str(facts["name"]), str(facts["reason"]), str(facts["hint"]))
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
        return Accelerator(TCG, f"cannot open '{DEVICE}': {(error.strerror or '').lower()}")
    progress("trying whether a guest boots under kvm")
    machine = qemu.Machine(PROBE_RAM_BYTES, network=False, accelerator=KVM)
    started = time.monotonic()
    try:
        with child.boot(machine, firmware(), dispatcher, seconds=PROBE_SECONDS):
            progress(f"kvm works: a guest was up in {time.monotonic() - started:.1f} seconds")
            return Accelerator(KVM)
    except IsolationError as error:
        return Accelerator(TCG, str(error)[:REASON_MAXIMUM])
    except ProaError:
        return Accelerator(TCG, f"a guest under kvm did not boot in {PROBE_SECONDS:g} seconds")


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
