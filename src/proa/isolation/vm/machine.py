"""Virtual machines as instances: a clone of a template in a place of its own, else a full boot."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from proa import plan
from proa.agent import HULL, Agent, Kind
from proa.errors import Invalid, IsolationError, Timeout, Unsupported
from proa.host import features, files, netlink
from proa.host.cgroup import Usage
from proa.isolation.base import Features, Running
from proa.isolation.places import Place, Places
from proa.isolation.vm import accel, child, disks, guest, hull, inside, plans, qemu, qmp
from proa.isolation.vm.template import IGNORE_SHARED, Template, Templates
from proa.plan import encode
from proa.resources import Launch, Sources
from proa.spec import Limits

MIB = 1 << 20
RAM_CLASSES_MIB = (256, 512, 1024, 2048, 4096)
RAM_STEP_MIB = 1024
KERNEL_SHARE_MIB = 96  # of a machine's RAM that no limit of an instance may count on
TEMPLATE_RAM_MIB = 2048  # larger machines boot: untouched pages of a template cost twice
TEMPLATE_VCPUS = 2
BOOT_SECONDS = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The `[vm]` table of the configuration."""

    kernel: str = ""
    accelerator: str = "auto"
    memory_mib: int = 1024
    disk_gib: int = 16
    template: bool = True

    @classmethod
    def parse(cls, table: dict[str, Any]) -> Settings:
        """Raises Invalid for an unknown key or a value of another type."""
        known = cls()
        for key, value in table.items():
            if type(value) is not type(getattr(known, key, None)):
                raise Invalid(f"'{key} = {value}' in the configuration's [vm] is not understood")
        settings = replace(known, **table)
        if settings.accelerator not in ("auto", "kvm", "tcg"):
            raise Invalid(
                f"unknown accelerator '{settings.accelerator}'", hint="use auto, kvm or tcg"
            )
        return settings


def shape(limits: Limits, settings: Settings) -> tuple[int, int]:
    """RAM in MiB and processors for these limits; the guest's kernel enforces the exact ones."""
    wanted = settings.memory_mib
    if limits.memory_bytes:
        wanted = math.ceil(limits.memory_bytes / MIB) + KERNEL_SHARE_MIB
    ram = next((size for size in RAM_CLASSES_MIB if size >= wanted), 0)
    ram = ram or math.ceil(wanted / RAM_STEP_MIB) * RAM_STEP_MIB
    return ram, max(1, min(math.ceil(limits.cpus), os.cpu_count() or 1))


@dataclass
class Machine:
    """A running vm: see `isolation.base.Running`."""

    place: Place
    places: Places
    qmp: qmp.Qmp
    shape: qemu.Machine
    facts: dict[str, str]
    plugged: Callable[[], Sources] = field(default=lambda: Sources(root=""))

    @property
    def saved(self) -> dict[str, Any]:
        """What `adopt` needs."""
        return {
            "place": self.place.name,
            "base": self.place.base,
            "pid": self.place.pid,
            "ram_bytes": self.shape.ram_bytes,
            "vcpus": self.shape.vcpus,
            "network": self.shape.network,
            "facts": self.facts,
        }

    @property
    def sources(self) -> Sources:
        """Mounts and link, and the clock of this very moment."""
        return self.plugged()

    def agent(self) -> Agent:
        """The connection to the monitor, which passes requests on to init."""
        return self.place.agent

    def pause(self) -> None:
        """Stop the virtual processors."""
        self.qmp.execute("stop")

    def resume(self) -> None:
        """Let them run again, with the clock set right."""
        self.qmp.execute("cont")
        self.place.agent.setup((plan.Clock(time.time_ns()),))

    def update(self, limits: Limits) -> None:
        """Change limits: the guest's own up to its RAM, processor time by the host's cgroup."""
        room = self.shape.ram_bytes - KERNEL_SHARE_MIB * MIB
        if limits.memory_bytes > room:
            raise Unsupported(
                f"this vm has {self.shape.ram_bytes // MIB} MiB and cannot grow to "
                f"'{limits.memory_bytes // MIB}' MiB while it runs",
                hint="stop it, update it, start it",
            )
        self.place.agent.setup(plans.limit_steps(limits, lift=True))
        self.place.cgroup.apply(_host_limits(limits))

    def usage(self) -> Usage:
        """The cost of QEMU to the host, by its cgroup."""
        return self.place.cgroup.usage()

    def inside(self) -> Usage:
        """The account of the guest's kernel."""
        return inside.usage(self.place.agent)

    def kill(self) -> None:
        """End QEMU and remove the place."""
        self.places.end(self.place)
        self.qmp.close()


class Vms:
    """Makes virtual machines: see `isolation.base.Isolation`.

    `root` holds kernels, templates and what else is made once.  `progress` is told, line by line,
    what takes long the first time.
    """

    name = "vm"
    features = Features(
        shares_kernel=False,
        live_memory_update=True,
        live_cpu_update=True,
        processes_visible_to_host=False,
    )

    def __init__(
        self,
        root: Path,
        places: Places,
        settings: dict[str, Any] | None = None,
        progress: guest.Progress = log.info,
    ) -> None:
        self._root = root
        self._places = places
        self._settings = Settings.parse(settings or {})
        self._progress = progress
        self._once = threading.RLock()
        self._prepared: _Prepared | None = None
        self._templates = Templates(
            root / "templates", lambda: self._ready().firmware, places.dispatcher, progress
        )

    # -- what the waist asks --------------------------------------------------------------------

    def check(self) -> list[str]:
        """What this host lacks for virtual machines."""
        return [
            item.reason for item in features.check() if item.name in ("qemu", "tun") and not item.ok
        ]

    def prepare(self) -> None:
        """Make now what the first start would: kernel, accelerator, template of the usual shape."""
        for network in (True, False):
            self._templates.get(self._machine(Limits(), network))

    def start(self, launch: Launch) -> Running:
        """Clone a template, or boot when there is none for the shape; init has answered then."""
        machine = self._machine(launch.limits, bool(launch.links))
        if not self._templated(machine):
            return self._start(launch, machine, None)
        template = self._templates.get(machine)
        try:
            return self._start(launch, machine, template)
        except IsolationError as error:
            log.warning("a clone did not start, booting instead: %s", error)
            self._templates.discard(machine, template)
            return self._start(launch, machine, None)

    def adopt(self, saved: dict[str, Any]) -> Running:
        """Connect to the monitor of a vm made by an engine now gone, and take over its QMP."""
        place = self._places.adopt(saved)
        control = socket.socket(fileno=place.agent.get_descriptor())
        shape = qemu.Machine(int(saved["ram_bytes"]), int(saved["vcpus"]), bool(saved["network"]))
        return Machine(place, self._places, qmp.Qmp(control), shape, dict(saved["facts"]))

    def repair(self, live: set[str]) -> None:
        """Remove half-made templates and kernels: nothing of an instance is kept here."""
        for directory in (self._root / "templates", self._root / "kernels"):
            for path in directory.glob(".*-*"):
                files.remove_tree(path)

    def close(self) -> None:
        """Let go of the templates' memory; instances keep theirs."""
        self._templates.close()

    # -- preparing -------------------------------------------------------------------------------

    def _ready(self) -> _Prepared:
        with self._once:
            if self._prepared is None:
                self._prepared = _prepare(self._root, self._places, self._settings, self._progress)
            return self._prepared

    def _machine(self, limits: Limits, network: bool) -> qemu.Machine:
        ram_mib, vcpus = shape(limits, self._settings)
        ready = self._ready()
        return qemu.Machine(ram_mib * MIB, vcpus, network, ready.accelerator.name, ready.tsc_khz)

    def _templated(self, machine: qemu.Machine) -> bool:
        return (
            self._settings.template
            and machine.ram_bytes <= TEMPLATE_RAM_MIB * MIB
            and machine.vcpus <= TEMPLATE_VCPUS
        )

    # -- starting --------------------------------------------------------------------------------

    def _start(self, launch: Launch, machine: qemu.Machine, template: Template | None) -> Machine:
        berth = hull.make(self._places)
        try:
            berth.place.cgroup.apply(_host_limits(launch.limits))
            self._power_on(berth, launch, machine, template)
        except BaseException as error:
            said = berth.last_words()
            self._places.release(berth.place.name)
            berth.qmp.close()
            if said and isinstance(error, IsolationError | Timeout):
                raise IsolationError(f"qemu ended: {said}") from error
            raise
        facts = self._facts(machine, "boot" if template is None else "template")
        return Machine(
            berth.place, self._places, berth.qmp, machine, facts, lambda: _plugged(launch)
        )

    def _power_on(
        self, berth: hull.Hull, launch: Launch, machine: qemu.Machine, template: Template | None
    ) -> None:
        """Start QEMU and get init's answer; in a clone nothing runs before it has entropy."""
        agent = berth.place.agent
        with ExitStack() as passed:
            passed.callback(berth.close_ends)
            cargo = self._cargo(launch, template, passed)
            started = hull.begin(berth, machine, cargo, launch.shares, self._ready().skeleton)
        if template is None:
            berth.qmp.pipeline(("qmp_capabilities", {}))
            agent.finish(started)
            agent.wait_hello(BOOT_SECONDS)
            agent.setup(plans.template_setup())
        else:
            uri = f"fd:{hull.state_number(cargo)}"
            berth.qmp.pipeline(
                ("qmp_capabilities", {}), IGNORE_SHARED, ("migrate-incoming", {"uri": uri})
            )
        setup = plans.clone_setup(secrets.token_bytes(plans.ENTROPY_BYTES), launch.limits)
        agent.finish(agent.begin(Kind.SETUP, HULL, encode(setup)))
        if template is None:
            agent.place(plans.place(network=machine.network))

    def _facts(self, machine: qemu.Machine, started_by: str) -> dict[str, str]:
        ready = self._ready()
        facts = {
            "accelerator": machine.accelerator,
            "kernel": ready.firmware.kernel.release,
            "kernel_origin": ready.firmware.kernel.origin,
            "started_by": started_by,
            "ram_mib": str(machine.ram_bytes // MIB),
            "vcpus": str(machine.vcpus),
        }
        if ready.accelerator.reason:
            facts["accelerator_reason"] = ready.accelerator.reason
        return facts

    def _cargo(self, launch: Launch, template: Template | None, passed: ExitStack) -> hull.Cargo:
        """Open everything QEMU is born with; `passed` closes our copies."""

        def keep(descriptor: int) -> int:
            passed.callback(os.close, descriptor)
            return descriptor

        ready = self._ready()
        image = keep(os.open(launch.rootfs.disk(), os.O_RDONLY | os.O_CLOEXEC))
        disk = keep(self._disk(launch))
        tap = -1
        if launch.links:
            link = launch.links[0]
            tap = keep(netlink.tap_open(link.host_name, link.bridge))
        if template:
            return hull.Cargo(image, disk, tap, template.memory, keep(template.open_state()))
        firmware = ready.firmware
        return hull.Cargo(
            image,
            disk,
            tap,
            kernel=keep(os.open(firmware.kernel.image, os.O_RDONLY | os.O_CLOEXEC)),
            initramfs=keep(os.open(firmware.initramfs, os.O_RDONLY | os.O_CLOEXEC)),
        )

    def _disk(self, launch: Launch) -> int:
        """The instance's writable disk: the one it has, else a new one."""
        path = launch.directory / "disk"
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return self._ready().seed.create(path)


@dataclass(frozen=True)
class _Prepared:
    """What is made once per engine, on the first use of a vm."""

    firmware: child.Firmware
    accelerator: accel.Accelerator
    tsc_khz: int
    seed: disks.Seed
    skeleton: Path


def _prepare(root: Path, places: Places, settings: Settings, progress: guest.Progress) -> _Prepared:
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not Path(qemu.PROGRAM).exists():
        raise Unsupported(f"no '{qemu.PROGRAM}'", hint="install 'qemu-system-x86'")
    with files.Lock(root / "lock"):
        kernel = guest.find(root / "kernels", settings.kernel, progress)
        firmware = child.Firmware(kernel, _initramfs(root, kernel, places.native))
        accelerator = accel.choose(
            root / "accelerator.json",
            lambda: firmware,
            places.dispatcher,
            settings.accelerator,
            progress,
        )
        seed = disks.format_seed(root, settings.disk_gib << 30)
        return _Prepared(
            firmware, accelerator, guest.tsc_khz(), seed, hull.make_skeleton(root / "skeleton")
        )


def _initramfs(root: Path, kernel: guest.Kernel, native: Path) -> Path:
    """The first file system around this build of init, written once; older ones are removed."""
    content = kernel.initramfs(native.read_bytes())
    path = root / f"initramfs-{hashlib.sha256(content).hexdigest()[:16]}"
    if not path.exists():
        for old in root.glob("initramfs-*"):
            old.unlink(missing_ok=True)
        files.atomic_write(path, content)
        path.chmod(0o644)
    return path


def _host_limits(limits: Limits) -> Limits:
    """What the host's cgroup limits of a vm: processor time; the rest is the guest's."""
    return Limits(cpus=limits.cpus, cpu_shares=limits.cpu_shares)


def _plugged(launch: Launch) -> Sources:
    """The sources of a launch that happens now."""
    found = plans.sources(launch.links, launch.shares, launch.id[:32])
    first = (
        plan.Clock(time.time_ns()),
        *(plan.Sysctl(name, value) for name, value in launch.sysctls),
    )
    return replace(found, before=(*first, *found.before))
