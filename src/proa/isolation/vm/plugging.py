"""Links and shares that are plugged into, and taken out of, a running vm.

A share becomes one more directory of the one folder QEMU serves by 9p, so it takes no device; a
link beyond the machine's own is a card on the bus kept for such (`hotplug`).
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

from proa import plan
from proa.agent import Launch as Flag
from proa.errors import Unsupported
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
    if machine.facts.get("shares") == VIRTIOFS:
        raise Unsupported(
            "folders cannot be added to a vm whose shares go by virtiofs",
            hint="make it with the shares by 9p",
        )
    idmap = machine.place.user_namespace()
    try:
        tree = share_mount(share, idmap)
    finally:
        os.close(idmap)
    number = machine.shares_made
    target = f"{qemu.SHARES_PATH}/{number}"
    try:
        _on_host(machine, (plan.Attach("fd:0", target),), (tree,))
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
    number = machine.shares.pop(share.target, -1)
    if number >= 0 and machine.facts.get("shares") != VIRTIOFS:
        _on_host(machine, (plan.Detach(f"{qemu.SHARES_PATH}/{number}"),), ())


def _folder() -> tuple[plan.Step, ...]:
    return (
        plan.Directory(SHARES),
        plan.MountFs("9p", "shares", SHARES, "nosuid,nodev", plans.SHARE_OPTIONS),
    )


def _on_host(machine: Machine, steps: tuple[plan.Step, ...], descriptors: tuple[int, ...]) -> None:
    """Steps in QEMU's own place."""
    later.run_by(machine.place.agent, steps, int(Flag.JOIN | Flag.LOCAL), descriptors)
