"""Networks in Docker's words: made, listed, inspected, joined, left, removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proa.engine import inspect, links, request
from proa.engine.core import Core
from proa.engine.fields import Fields
from proa.engine.instance import Instance
from proa.errors import Conflict, Invalid, NotFound, Unsupported
from proa.network.user import PREDEFINED, Network, Wanted
from proa.resources import Link

DRIVERS = {"bridge": "bridge", "none": "null"}


def listing(core: Core) -> list[dict[str, Any]]:
    """Docker's NetworkResource of every network, without who is in it."""
    return [*map(builtin, DRIVERS), *(_resource(item) for item in core.user_networks.all())]


def found(core: Core, reference: str) -> dict[str, Any]:
    """One network by name, id or the start of an id, with who is in it.  Raises NotFound."""
    name = _named(core, reference)
    always = name in DRIVERS
    network = builtin(name) if always else _resource(core.user_networks.get(name))
    network["Containers"] = {
        item.id: _member(item, link)
        for item in core.all()
        if item.live and (link := links.present(core, item).get(name))
    }
    return network


def _named(core: Core, reference: str) -> str:
    for name in DRIVERS:
        if reference and (reference == name or links.id_of(core, name).startswith(reference)):
            return name
    return core.user_networks.get(reference).name


def create(core: Core, body: Any) -> str:
    """A new network; its id.  Raises Invalid, Conflict, Unsupported."""
    given = Fields(body)
    driver = given.text("Driver") or "bridge"
    if driver != "bridge":
        raise Unsupported(f"network driver '{driver}' is not supported", hint="use bridge")
    if given.boolean("EnableIPv6"):
        raise Unsupported("IPv6 networks are not supported")
    pools = given.fields("IPAM").objects("Config")
    if len(pools) > 1:
        raise Unsupported("a network with several subnets is not supported")
    pool = pools[0] if pools else Fields({})
    if pool.text("IPRange"):
        raise Unsupported("an ip range within a subnet is not supported")
    wanted = Wanted(
        given.text("Name"), pool.text("Subnet"), pool.text("Gateway"), given.boolean("Internal"),
        given.texts("Labels"), given.texts("Options"),
    )  # fmt: skip
    if wanted.gateway and not wanted.subnet:
        raise Invalid("a gateway needs the subnet it is in")
    made = core.user_networks.create(wanted)
    _emit(core, "create", made.name, made.id)
    return made.id


def remove(core: Core, reference: str) -> None:
    """Raises NotFound, Conflict for one that is in use or always there."""
    name = _named(core, reference)
    if name in PREDEFINED:
        raise Conflict(f"{name} is a pre-defined network and cannot be removed")
    network = core.user_networks.get(name)
    live = [item.name for item in links.users(core, network) if item.live]
    if live:
        raise Conflict(
            f"error while removing network: network {name} has active endpoints: "
            f"{', '.join(sorted(live))}",
            hint="stop them, or disconnect them from it",
        )
    core.user_networks.remove(network)
    _emit(core, "destroy", network.name, network.id)


def unused(core: Core) -> list[Network]:
    """Networks no instance is in, or would be in when started."""
    return [item for item in core.user_networks.all() if not links.users(core, item)]


def connect(core: Core, reference: str, instance: Instance, settings: Any) -> None:
    """Let an instance join a network, with Docker's EndpointSettings."""
    name = _named(core, reference)
    if name == "none":
        raise Conflict("an instance cannot join the network 'none' while it has others")
    links.connect(core, instance, request.endpoint(name, Fields(settings, "EndpointConfig")))
    _emit(core, "connect", name, links.id_of(core, name), container=instance.id)


def disconnect(core: Core, reference: str, instance: Instance) -> None:
    """Let it leave."""
    name = _named(core, reference)
    links.disconnect(core, instance, name)
    _emit(core, "disconnect", name, links.id_of(core, name), container=instance.id)


def _emit(core: Core, action: str, name: str, id: str, **attributes: str) -> None:
    core.events.emit("network", action, id, {"name": name, "type": "bridge", **attributes})


# -- Docker's objects -----------------------------------------------------------------------------


def builtin(name: str) -> dict[str, Any]:
    """A network that is always there."""
    return {
        "Name": name, "Id": links.builtin_id(name), "Created": inspect.NEVER, "Scope": "local",
        "Driver": DRIVERS[name], **_ALWAYS, "IPAM": _ipam([]), "Internal": False, "Labels": {},
        "Options": {},
    }  # fmt: skip


_ALWAYS: dict[str, Any] = {
    "EnableIPv6": False, "Attachable": False, "Ingress": False, "ConfigFrom": {"Network": ""},
    "ConfigOnly": False, "Containers": {},
}  # fmt: skip


def _ipam(pools: list[dict[str, str]]) -> dict[str, Any]:
    return {"Driver": "default", "Options": None, "Config": pools}


def _resource(network: Network) -> dict[str, Any]:
    return {
        "Name": network.name, "Id": network.id, "Created": inspect.moment(network.created_ns),
        "Scope": "local", "Driver": "bridge", **_ALWAYS,
        "IPAM": _ipam([{"Subnet": network.subnet, "Gateway": network.gateway}]),
        "Internal": network.internal, "Labels": network.labels, "Options": network.options,
    }  # fmt: skip


def _member(instance: Instance, link: Link) -> dict[str, str]:
    return {
        "Name": instance.name, "EndpointID": instance.id, "MacAddress": link.mac,
        "IPv4Address": link.address, "IPv6Address": "",
    }  # fmt: skip


def prune(core: Core, labels: Callable[[dict[str, str]], bool]) -> list[str]:
    """Remove networks nobody uses whose labels pass the test; their names."""
    removed = []
    for network in unused(core):
        if labels(network.labels):
            try:
                remove(core, network.id)
            except (NotFound, Conflict):
                continue
            removed.append(network.name)
    return removed
