"""Containers: an instance's process launched in a place, over an overlay mount with mapped ids.

All mounts are made as detached descriptors and sent with the launch plan, so they exist in the
place's mount namespace only and vanish with it.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proa import plan
from proa.agent import MAIN, Agent
from proa.agent import Launch as Flag
from proa.errors import Unsupported
from proa.host import features, mounts, netlink
from proa.host.cgroup import Usage
from proa.isolation import later, processors
from proa.isolation.base import Features, Running
from proa.isolation.container import emulation as emulator
from proa.isolation.container.emulation import Emulation
from proa.isolation.places import Place, Places
from proa.isolation.surroundings import SHARES
from proa.plan import Step
from proa.resources import Disk, Launch, Link, Share, Sources
from proa.spec import Limits

if TYPE_CHECKING:
    from proa.costs import Memory


@dataclass
class Container:
    """A running container: see `isolation.base.Running`."""

    place: Place
    places: Places
    sources: Sources = field(default_factory=lambda: Sources(root=""))
    emulation: Emulation | None = None
    placed_ns: int = 0

    @property
    def saved(self) -> dict[str, Any]:
        """What `adopt` needs."""
        return {"place": self.place.name, "base": self.place.base, "pid": self.place.pid}

    @property
    def facts(self) -> dict[str, str]:
        """The kernel is the host's; the processor may be emulated."""
        facts = {"kernel": os.uname().release}
        if self.emulation is not None:
            facts["platform"] = f"linux/{self.emulation.processor.name}"
            facts["emulated_by"] = self.emulation.described
        return facts

    def agent(self) -> Agent:
        """The monitor's connection."""
        return self.place.agent

    def enter(self) -> tuple[Agent, int]:
        """Into the place's namespaces."""
        return self.place.agent, int(Flag.JOIN)

    def launched(self, limits: Limits) -> None:
        """The process runs; there is nothing more to it."""

    def signal(self, number: int) -> None:
        """Signal the main process."""
        self.place.agent.signal(MAIN, number)

    def pause(self) -> None:
        """Freeze by cgroup."""
        self.place.cgroup.freeze()

    def resume(self) -> None:
        """Thaw by cgroup."""
        self.place.cgroup.thaw()

    hold, let_go = pause, resume

    def update(self, limits: Limits) -> None:
        """Change the cgroup's limits."""
        self.place.cgroup.apply(limits)

    def plug(self, item: Link | Share | Disk) -> None:
        """A veth moved in and set up, or a mount attached at its target."""
        if isinstance(item, Link):
            netlink.veth_create(item.host_name, item.name, self.place.pid, item.bridge)
            later.run(self, link_steps(item))
            return
        if isinstance(item, Disk):
            raise Unsupported("a container has no disks of its own", hint="attach a volume")
        idmap = self.place.user_namespace()
        try:
            tree = share_mount(item, idmap)
        finally:
            os.close(idmap)
        try:
            steps = (plan.Attach("fd:0", item.target, "ro" if item.readonly else ""),)
            later.run(self, steps, (tree,))
        finally:
            os.close(tree)

    def unplug(self, item: Link | Share | Disk) -> None:
        """Delete the veth, or take the mount from its target."""
        if isinstance(item, Link):
            netlink.link_delete(item.host_name)
        elif isinstance(item, Share):
            later.run(self, (plan.Detach(item.target),))

    def usage(self) -> Usage:
        """The cgroup's account."""
        return self.place.cgroup.usage()

    def memory(self) -> Memory:
        """Part by part."""
        from proa.isolation import memory  # asked for seldom, and not at an engine's start

        return memory.of_processes(self.place.cgroup)

    inside = usage

    def kill(self) -> None:
        """End every process, remove the cgroup and the place."""
        self.places.end(self.place)


class Containers:
    """Makes containers: see `isolation.base.Isolation`."""

    name = "container"
    features = Features(
        shares_kernel=True,
        live_memory_update=True,
        live_cpu_update=True,
        processes_visible_to_host=True,
    )

    def __init__(self, places: Places) -> None:
        self._places = places

    def check(self) -> list[str]:
        """What this host lacks for containers."""
        needed = ("kernel", "user-namespaces", "overlay")
        return [item.reason for item in features.check() if item.name in needed and not item.ok]

    def start(self, launch: Launch) -> Running:
        """Take a place and give it its limits, root file system, shares and links."""
        foreign = processors.is_foreign(launch.architecture) and not launch.idle
        emulation = emulator.find(launch.architecture) if foreign else None
        place = self._places.make(launch.sysctls) if launch.sysctls else self._places.take()
        placed_ns = time.monotonic_ns()
        try:
            place.cgroup.apply(launch.limits)
            sources = _sources(place, launch, emulation)
            for link in launch.links:
                netlink.veth_create(link.host_name, link.name, place.pid, link.bridge)
            place.agent.hold(launch.hold)
        except BaseException:
            self._places.release(place.name)
            raise
        return Container(place, self._places, sources, emulation, placed_ns)

    def adopt(self, saved: dict[str, Any]) -> Running:
        """Connect to the monitor of a container made by an engine now gone."""
        return Container(self._places.adopt(saved), self._places)

    def repair(self, live: set[str]) -> None:
        """Nothing beyond the places themselves."""

    def close(self) -> None:
        """Nothing is kept ready but places."""


def _sources(place: Place, launch: Launch, emulation: Emulation | None) -> Sources:
    """Detached mounts for the root and the shares; the caller closes them once launched."""
    with ExitStack() as opened:
        idmap = place.user_namespace()
        opened.callback(os.close, idmap)
        made: list[int] = []
        try:
            rootfs, once = launch.rootfs, launch.once
            made.append(mounts.layered(rootfs.layers, rootfs.upper, idmap, volatile=once))
            made.extend(share_mount(share, idmap) for share in launch.shares)
            if emulation is not None and emulation.program is not None:
                made.append(mounts.open_tree(emulation.program))
        except BaseException:
            for descriptor in made:
                os.close(descriptor)
            raise
    before = [step for link in launch.links for step in link_steps(link)]
    if emulation is not None:
        before += emulation.steps(f"fd:{len(made) - 1}")
    shares = [f"fd:{n + 1}" for n in range(len(launch.shares))]
    for number, share in enumerate(launch.shares):
        if share.inner:
            before.append(plan.Attach(shares[number], f"{SHARES}/{number}"))
            shares[number] = f"{SHARES}/{number}/{share.inner}"
    hidden = any(share.inner for share in launch.shares)
    return Sources(
        root="fd:0",
        shares=tuple(shares),
        before=tuple(before),
        after=(plan.Mask(SHARES),) if hidden else (),
        descriptors=tuple(made),
    )


def share_mount(share: Share, idmap: int) -> int:
    """A detached mount of a share whose files show the ids they have on disk."""
    if share.layers:
        return mounts.layered(share.layers, None if share.readonly else share.source, idmap)
    descriptor = mounts.open_tree(share.source, recursive=True)
    try:
        mounts.set_attributes(
            descriptor, idmap_fd=idmap, readonly=share.readonly, nodev=True, recursive=True
        )
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def link_steps(link: Link) -> tuple[Step, ...]:
    """Bring an interface up inside, by the same verbs wherever it is plugged."""
    up = plan.Interface(link.name, link.name, link.mac, link.address, link.mtu)
    return (up, plan.Route(link.gateway)) if link.gateway else (up,)
