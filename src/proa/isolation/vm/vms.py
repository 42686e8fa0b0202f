"""Makes virtual machines: a spare or a clone of a template where there is one, else a boot."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proa import plan
from proa.errors import IsolationError, Timeout, Unsupported
from proa.host import features, files, netlink
from proa.isolation.base import Features, Running
from proa.isolation.places import Places
from proa.isolation.vm import (
    architectures,
    blocks,
    confinement,
    disks,
    folders,
    guest,
    hull,
    inspector,
    layers,
    named,
    plans,
    power,
    qemu,
    qmp,
)
from proa.isolation.vm.berths import Berths
from proa.isolation.vm.checkpoint import Checkpoint
from proa.isolation.vm.images import ImageTemplates, Wanted
from proa.isolation.vm.machine import Machine
from proa.isolation.vm.prepared import Ground, Preparation, Prepared
from proa.isolation.vm.settings import MIB, Settings, cache_mode, host_limits, reach, shape
from proa.isolation.vm.spares import Order, Spares
from proa.isolation.vm.template import Template, Templates
from proa.isolation.vm.whole.running import WHOLE
from proa.isolation.vm.whole.start import Wholes
from proa.resources import Launch, Sources
from proa.spec import Hardware, Limits

if TYPE_CHECKING:
    from proa.isolation.vm.footprint import Piece

TEMPLATE_RAM_MIB = 2048  # larger machines boot: untouched pages of a template cost twice
TEMPLATE_VCPUS = 2
BOOT, TEMPLATE = "boot", "template"  # of `Hardware.start`
PLAIN = Hardware()

log = logging.getLogger(__name__)


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
        machines=True,
        disks=True,
        changes="/dev/vdb",
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
        self._wholes = Wholes(places, self._settings, self._ground)
        self._progress = progress
        self._preparation = Preparation(root, places, self._settings, progress)
        self._ready = self._preparation.get
        self._templates = Templates(
            root / "templates", lambda machine: self._for(machine).firmware, places.dispatcher,
            progress,
        )  # fmt: skip
        self._images = ImageTemplates(root / "templates", places, progress)
        self._berths = Berths(places)
        self._spares = Spares(places, self._settings.spares, warm=self._settings.warm)

    def _ground(self, architecture: str) -> Ground:
        return self._preparation.ground(architecture)

    @property
    def pause_idle_seconds(self) -> int:
        """The owner's wish for vms that do not say."""
        return self._settings.pause_idle_seconds

    # -- what the waist asks --------------------------------------------------------------------

    def check(self) -> list[str]:
        """What this host lacks for virtual machines."""
        return [
            item.reason for item in features.check() if item.name in ("qemu", "tun") and not item.ok
        ]

    def prepare(self) -> None:
        """Make now what the first start would: kernel, accelerator, the usual templates."""
        for network in (True, False):
            self._templates.get(self._machine(Limits(), network))

    def kernel(self) -> guest.Kernel:
        """The guest's kernel with its extras, for disks that boot without Proa."""
        return self._preparation.kernel()

    def footprint(self, image_id: str, disk: Path, architecture: str) -> tuple[Piece, ...]:
        """What a vm of an image with this disk takes on the host's, in the usual shape."""
        from proa.isolation.vm import footprint  # asked for seldom

        if self._preparation.known(architecture) is None:
            return footprint.NOTHING
        machine = self._images.last(image_id) or self._machine(Limits(), True, architecture)
        return footprint.pieces(
            self._root / "templates", self._for(machine), machine, self._templates.key(machine),
            footprint.Subject(image_id, disk),
        )  # fmt: skip

    def drop_spares(self) -> None:
        """End what waits ready to be a vm; it is made again after the next start."""
        self._spares.drop()

    def told(self) -> dict[str, str]:
        """What guests run on, as far as it is known without making anything."""
        ready = self._preparation.known()
        if ready is None:
            return dict.fromkeys(("accelerator", "qemu", "guest_kernel"), "known with the first vm")
        best = ready.accelerator
        return {
            "accelerator": best.name, "accelerator_reason": best.reason,
            "qemu": ready.abilities.version, "guest_kernel": ready.firmware.kernel.release,
        }  # fmt: skip

    @contextmanager
    def inspector(self, disk: inspector.Disk, work: Path) -> Iterator[inspector.Inspector]:
        """A vm that reads a stranger's disk, which it may change; `work` is for scraps."""
        kernel, ready = self.kernel(), self._ready()
        native = self._places.native.read_bytes()
        firmware = inspector.firmware(kernel, native, work / "initramfs")
        machine = qemu.Machine(inspector.RAM_BYTES, 1, False, ready.accelerator.name, ready.tsc_khz)
        berth = self._berths.take(ready.skeleton)
        with hull.watched(berth, self._places):
            power.boot(berth, machine, firmware, disk.parts())
            yield inspector.Inspector(berth.place.agent, kernel)
        berth.end(self._places)

    def start(self, launch: Launch) -> Running:
        """Clone a template, or boot when there is none for the shape; init has answered then.

        A whole machine is made ready: it boots when it is launched.
        """
        launch = self._cached(launch)
        if launch.hardware.disk:
            return self._wholes.start(launch)
        architecture = "" if launch.idle else launch.architecture
        hardware = replace(launch.hardware, kernel="", cpu="") if launch.idle else launch.hardware
        machine = self._machine(launch.limits, bool(launch.links), architecture, hardware)
        if why := self._untemplated(launch, machine):
            return self._boot(launch, machine, why)
        try:
            running = self._from_image(launch, machine)
            if running is None:
                running = self._clone(launch, machine, self._templates.get(machine))
        except (IsolationError, Timeout) as error:
            log.warning("a clone did not start, booting instead: %s", error)
            self._templates.discard(machine)
            self._images.discard(machine, launch.rootfs.image_id)
            return self._boot(launch, machine, str(error))
        self._prepare_next(launch, machine)
        return running

    def revive(self, launch: Launch, found: Checkpoint, started_by: str) -> Machine:
        """A machine loaded from a checkpoint, with the instance's own disks; it stands still, and
        its tap is on no bridge, until `take_over`."""
        ready, launch = self._ready(), self._cached(launch)
        berth = self._berths.take(ready.skeleton)
        with hull.watched(berth, self._places):
            self._dress(berth, launch, found.shape)
            parts = self._parts(launch, ready.seed)
            if launch.links:
                name = launch.links[0].host_name
                parts = replace(parts, tap=lambda: netlink.tap_open(name, ""))
            power.revive(berth, found, parts)
        self._berths.replenish(ready.skeleton)
        return self._running(berth, launch, found.shape, started_by)

    def adopt(self, saved: dict[str, Any]) -> Running:
        """Connect to the monitor of a vm made by an engine now gone, and take over its QMP."""
        if saved.get(WHOLE):
            return self._wholes.adopt(saved)
        place = self._places.adopt(saved)
        control = socket.socket(fileno=place.agent.get_descriptor())
        known = qemu.Machine(
            int(saved["ram_bytes"]), int(saved["vcpus"]), bool(saved["network"]),
            ram_maximum=int(saved.get("ram_maximum", 0)),
            vcpus_maximum=int(saved.get("vcpus_maximum", 0)),
            architecture=str(saved.get("architecture", architectures.HOST)),
            options=str(saved.get("options", "")), tsc_khz=int(saved.get("tsc_khz", 0)),
            kernel=str(saved.get("kernel", "")), cpu=str(saved.get("cpu", "")),
        )  # fmt: skip
        found = Machine(place, self._places, qmp.Qmp(control), known, dict(saved["facts"]))
        found.places_beside = tuple(saved.get("places", ()))
        found.shares_made = int(saved.get("shares_made", 0))
        found.shares = dict(saved.get("shares", {}))
        return found

    def repair(self, live: set[str]) -> None:
        """Remove half-made templates and kernels: nothing of an instance is kept here."""
        for directory in (self._root / "templates", *self._root.glob("kernels*")):
            for path in directory.glob(".*-*"):
                files.remove_tree(path)

    def close(self) -> None:
        """Let go of the templates' memory; instances keep theirs."""
        self._berths.close()
        self._spares.close()
        self._images.close()
        self._templates.close()

    # -- preparing --------------------------------------------------------------------------------

    def _machine(
        self, limits: Limits, network: bool, architecture: str = "", hardware: Hardware = PLAIN
    ) -> qemu.Machine:
        ram_mib, vcpus = shape(limits, self._settings)
        kernel = hardware.kernel
        key = self._preparation.name_kernel(kernel, architecture) if kernel else ""
        ready, (most_mib, most_vcpus) = self._ready(architecture, key), reach(ram_mib, vcpus)
        if not ready.architecture.grows:
            most_mib, most_vcpus = 0, 0
        if hardware.machine not in ("", "auto", ready.architecture.machine):
            raise Unsupported(
                f"an image's vm is no '{hardware.machine}'",
                hint=f"for '{ready.architecture.name}' it is '{ready.architecture.machine}'",
            )
        return qemu.Machine(
            ram_mib * MIB, vcpus, network, ready.accelerate(hardware.accelerator).name,
            ready.tsc_khz, most_mib * MIB, most_vcpus, ready.architecture.name, ready.options, key,
            hardware.cpu,
        )  # fmt: skip

    def _for(self, machine: qemu.Machine) -> Prepared:
        return self._ready(machine.architecture, machine.kernel)

    def _untemplated(self, launch: Launch, machine: qemu.Machine) -> str:
        """Why a vm is to boot by itself; empty when a template may serve."""
        hardware = launch.hardware
        reasons = {
            "a full boot was asked for": hardware.start == BOOT,
            "virtiofs was asked for, which shares the RAM": bool(launch.shares)
            and hardware.shares == folders.VIRTIOFS,
            "its kernel has no 9p, so folders take virtiofs": bool(launch.shares)
            and bool(self._for(machine).firmware.kernel.absent),
            "the configuration's 'vm.template' is off": not self._settings.template,
            f"it has more than {TEMPLATE_RAM_MIB} MiB": machine.ram_bytes > TEMPLATE_RAM_MIB * MIB,
            f"it has more than {TEMPLATE_VCPUS} processors": machine.vcpus > TEMPLATE_VCPUS,
        }
        return next((reason for reason, holds in reasons.items() if holds), "")

    # -- starting ---------------------------------------------------------------------------------

    def _boot(self, launch: Launch, machine: qemu.Machine, why: str) -> Machine:
        """Boot a kernel for this one instance.  Raises Unsupported when that must not be."""
        if launch.hardware.start == TEMPLATE and not launch.idle:
            raise Unsupported(
                f"a start from a template was demanded and cannot be: {why}",
                hint="leave the choice with 'auto', or ask for 'boot'",
            )
        ready = self._for(machine)
        kernel = ready.firmware.kernel
        parts, server = self._parts(launch, ready.seed), None
        with ExitStack() as undo:
            if folders.kind(launch, kernel.modules) == folders.VIRTIOFS:
                server = folders.serve(self._places, ready.skeleton, launch)
                undo.callback(server.end, self._places)
                parts = replace(parts, shares=(), folders=server.descriptor)
            elif launch.shares and kernel.absent:
                raise Unsupported(
                    f"the kernel '{kernel.release}' has neither 9p nor virtiofs for '-v'",
                    hint="copy files in: proa cp",
                )
            berth = self._berths.take(ready.skeleton)
            with hull.watched(berth, self._places):
                self._dress(berth, launch, machine)
                power.boot(berth, machine, ready.firmware, parts)
                berth.place.agent.finish(power.individualise(berth, launch.limits))
            undo.pop_all()
        if server:
            server.watch(launch.id, berth.place)
        return self._running(berth, launch, machine, "boot", server)

    def _clone(self, launch: Launch, machine: qemu.Machine, template: Template) -> Machine:
        """Clone a template and give it what is its own."""
        ready = self._for(machine)
        berth = self._berths.take(ready.skeleton)
        with hull.watched(berth, self._places):
            self._dress(berth, launch, machine)
            parts = self._parts(launch, template.seed or ready.seed)
            power.clone(berth, machine, template, parts, qemu.Clone())
            pinned = _pinned(launch, template)
            berth.place.agent.finish(power.individualise(berth, launch.limits, pinned))
        self._berths.replenish(ready.skeleton)
        started_by = "image template" if template.seed else "template"
        return self._running(berth, launch, machine, started_by)

    def _from_image(self, launch: Launch, machine: qemu.Machine) -> Machine | None:
        """A new instance by its image's own template, best by a spare of it; None without one."""
        template = self._images.get(machine, launch.rootfs.image_id)
        if template is None or launch.idle or layers.load(launch.directory):
            return None
        usual = not launch.shares and blocks.cache(launch.hardware.cache) == blocks.WRITEBACK
        spare = self._spares.take(template) if usual else None
        if spare is None:
            return self._clone(launch, machine, template)
        with hull.watched(spare.berth, self._places):
            spare.claim(launch)
            pinned = _pinned(launch, template)
            waiter = power.individualise(spare.berth, launch.limits, pinned)
            self._dress(spare.berth, launch, machine)
            spare.berth.place.agent.finish(waiter)
        return self._running(spare.berth, launch, machine, "spare")

    def _prepare_next(self, launch: Launch, machine: qemu.Machine) -> None:
        """In the background: the image's template, spares of it."""
        ready, image = self._for(machine), launch.rootfs.disk()
        if not self._settings.image_templates or launch.once:
            return
        template = self._images.get(machine, launch.rootfs.image_id)
        if template is not None:
            self._spares.order(Order(machine, template, image, ready.skeleton))
            return
        generic = self._templates.get(machine)
        self._images.want(
            Wanted(machine, launch.rootfs.image_id, image, generic, ready.seed, ready.skeleton)
        )

    def _cached(self, launch: Launch) -> Launch:
        """The same with its disks' cache mode decided."""
        mode = cache_mode(self._settings, launch.hardware.cache, thrown_away=launch.remove)
        return replace(launch, hardware=replace(launch.hardware, cache=mode))

    def _dress(self, berth: hull.Hull, launch: Launch, machine: qemu.Machine) -> None:
        """What the host gives an instance beside its machine."""
        berth.placed_ns = time.monotonic_ns()
        berth.place.cgroup.apply(host_limits(launch.limits, machine.ram_bytes))
        berth.place.agent.hold(launch.hold)

    def _parts(self, launch: Launch, seed: disks.Seed) -> power.Parts:
        link = launch.links[0] if launch.links else None
        return power.Parts(
            launch.rootfs.disk(),
            lambda: _open_disk(launch.directory, seed),
            (lambda: netlink.tap_open(link.host_name, link.bridge)) if link else None,
            launch.shares,
            cache=blocks.cache(launch.hardware.cache),
        )

    def _running(
        self,
        berth: hull.Hull,
        launch: Launch,
        machine: qemu.Machine,
        started_by: str,
        server: folders.Folders | None = None,
    ) -> Machine:
        facts = self._facts(machine, started_by, launch.hardware)
        facts["cache"] = launch.hardware.cache
        if launch.shares:
            facts["shares"] = folders.VIRTIOFS if server else folders.NINEP
        made = Machine(
            berth.place,
            self._places,
            berth.qmp,
            machine,
            facts,
            lambda: _plugged(launch, facts),
            (server.place.name,) if server else (),
            len(launch.shares),
            {share.target: number for number, share in enumerate(launch.shares)},
            berth.placed_ns,
        )
        for link in launch.links[1:]:
            made.plug(link)
        made.throttle(launch.limits)
        return made

    def _facts(self, machine: qemu.Machine, started_by: str, wanted: Hardware) -> dict[str, str]:
        try:
            ready = self._for(machine)
            kernel = ready.firmware.kernel.release, ready.firmware.kernel.origin
        except Unsupported:  # of a copy whose memory has the kernel, which is gone by now
            ready, kernel = (
                self._ready(machine.architecture),
                (named.release(machine.kernel), f"named: {wanted.kernel}"),
            )
        accelerator = ready.accelerate(wanted.accelerator)
        facts = {
            "accelerator": machine.accelerator,
            "platform": f"linux/{machine.architecture}",
            "machine": ready.architecture.machine,
            "qemu": ready.abilities.version,
            "kernel": kernel[0],
            "kernel_origin": kernel[1],
            "started_by": started_by,
            "ram_mib": str(machine.ram_bytes // MIB),
            "vcpus": str(machine.vcpus),
            "landlock": confinement.fact(),
        }
        if wanted.cpu:
            facts["cpu"] = wanted.cpu
        if wanted.start:
            facts["start"] = wanted.start
        if accelerator.reason:
            facts["accelerator_reason"] = accelerator.reason
        if not ready.architecture.native:
            facts["emulated_by"] = str(ready.architecture.program)
        return facts


def _open_disk(directory: Path, seed: disks.Seed) -> layers.Opened:
    """The instance's writable disk: the chain it has, else a new file."""
    chain = layers.load(directory).get(layers.FIRST)
    if chain is None:
        layers.sweep(directory)
        return layers.Opened.single(seed.create(directory / layers.FIRST))
    return layers.open_all(chain)


def _pinned(launch: Launch, template: Template) -> int:
    """The place to pin when nothing that is written in it will be read again."""
    return template.place_pid if launch.remove and not launch.shares else 0


def _plugged(launch: Launch, facts: dict[str, str]) -> Sources:
    """The sources of a launch that happens now."""
    mounted = facts["started_by"] not in ("boot", "template")
    virtiofs = facts.get("shares") == folders.VIRTIOFS
    found = plans.sources(
        launch.links[:1], launch.shares, launch.id[:32], mounted=mounted, virtiofs=virtiofs
    )
    clock = plan.Clock(time.time_ns())
    sysctls = (plan.Sysctl(name, value) for name, value in launch.sysctls)
    return replace(found, before=(clock, *found.before, *sysctls))
