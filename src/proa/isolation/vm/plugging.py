"""Links and shares that are plugged into, and taken out of, a running vm.

A share becomes one more directory of the one folder that is served, so it takes no device; a
link beyond the machine's own is a card on the bus kept for such (`hotplug`).
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from proa import plan
from proa.agent import MAIN, Agent
from proa.agent import Launch as Flag
from proa.errors import IsolationError, LaunchError
from proa.host import netlink
from proa.isolation import later
from proa.isolation.container.isolation import link_steps, share_mount
from proa.isolation.surroundings import SHARES
from proa.isolation.vm import growth, hotplug, plans, qemu
from proa.resources import Link, Share

if TYPE_CHECKING:
    from proa.isolation.vm.machine import Machine

OWN = "eth0"  # the card a machine is made with: it stays, switched off
VIRTIOFS = "virtiofs"


def plug_link(machine: Machine, link: Link) -> None:
    """A card of its own on the link's bridge, set up in the guest."""
    plug_card(machine, link)
    quiet = plan.Sysctl(f"net/ipv6/conf/{link.name}/disable_ipv6", "1")
    growth.until_there(machine, (quiet, *link_steps(link)))


def plug_card(machine: Machine, link: Link) -> None:
    """The card alone."""
    tap = netlink.tap_open(link.host_name, link.bridge)
    try:
        netdev = {"type": "tap", "id": f"net-{link.name}", "fd": f"tap-{link.name}"}
        device = {
            "driver": "virtio-net-pci", "id": f"nic-{link.name}", "netdev": netdev["id"],
            "mac": link.mac, "romfile": "",
        }  # fmt: skip
        hotplug.plug(machine, device, {f"tap-{link.name}": tap}, (("netdev_add", netdev),))
    except BaseException:
        hotplug.forget(machine, (("netdev_del", {"id": f"net-{link.name}"}),))
        raise
    finally:
        os.close(tap)


def unplug_link(machine: Machine, link: Link) -> None:
    """Take the card away; the machine's own only falls silent, on no bridge."""
    if link.name == OWN:
        down = plan.Write(f"/sys/class/net/{OWN}/flags", "0644", "0x1002")
        machine.agent().setup((down,))
        netlink.link_retire(link.host_name, f"px{secrets.token_hex(6)}")
        return
    gone = (("netdev_del", {"id": f"net-{link.name}"}),)
    hotplug.unplug(machine, f"nic-{link.name}", gone)


def plug_share(machine: Machine, share: Share) -> None:
    """Mount it where QEMU serves from, then attach that inside."""
    agent, flags, idmap = _server(machine)
    try:
        tree = share_mount(share, idmap)
    finally:
        os.close(idmap)
    number = machine.shares_made
    target = f"{qemu.SHARES_PATH}/{number}"
    try:
        steps = (*_room(target, share), plan.Attach("fd:0", target))
        later.run_by(agent, steps, flags, (tree,))
    finally:
        os.close(tree)
    first = () if number else _folder()
    again = (plan.Detach(SHARES),) if number else ()
    inner = f"{SHARES}/{number}" + (f"/{share.inner}" if share.inner else "")
    attach = plan.Attach(inner, share.target, "ro" if share.readonly else "")
    machine.shares_made += 1
    machine.shares[share.target] = number
    later.run(machine, (*first, *again, attach, plan.Mask(SHARES)))


def unplug_share(machine: Machine, share: Share) -> None:
    """Take it from its target; what still uses it inside keeps it until it ends."""
    later.run(machine, (plan.Detach(share.target),))
    if machine.facts.get("shares") == VIRTIOFS:  # whose file systems are mounted over it on use
        with suppress(LaunchError):
            later.run(machine, (plan.Detach(share.target),))
    number = machine.shares.pop(share.target, -1)
    if number < 0:
        return
    agent, flags, idmap = _server(machine)
    os.close(idmap)
    later.run_by(agent, (plan.Detach(f"{qemu.SHARES_PATH}/{number}"),), flags)


def _room(target: str, share: Share) -> tuple[plan.Step, ...]:
    """A mount point in the folder that is served, which nobody there can write to otherwise."""
    point = plan.Write(target, "0644", "") if share.source.is_file() else plan.Directory(target)
    return (plan.ReadOnly(qemu.SHARES_PATH, "undo"), point, plan.ReadOnly(qemu.SHARES_PATH))


def _folder() -> tuple[plan.Step, ...]:
    return (
        plan.Directory(SHARES),
        plan.MountFs("9p", "shares", SHARES, "nosuid,nodev", plans.SHARE_OPTIONS),
    )


def _server(machine: Machine) -> tuple[Agent, int, int]:
    """Who serves the shares, QEMU or a server in a place of its own: the agent to ask, with what
    flags, and a descriptor of the user namespace, which the caller closes."""
    if machine.facts.get("shares") != VIRTIOFS:
        flags = int(Flag.JOIN | Flag.LOCAL)
        return machine.place.agent, flags, machine.place.user_namespace()
    if machine.server is None:
        machine.server = machine.places.connect(machine.places_beside[0])
    found = [item.pid for item in machine.server.state() if item.id == MAIN]
    try:
        idmap = os.open(f"/proc/{found[0]}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, IndexError) as error:
        raise IsolationError("the file server of this vm has ended") from error
    return machine.server, int(Flag.JOIN), idmap
