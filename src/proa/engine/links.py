"""An instance's places in networks: at its start, joined and left while it runs; their names."""

from __future__ import annotations

import hashlib
import threading
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial

from proa import compile, plan
from proa.engine import instance as states
from proa.engine import wire
from proa.engine.core import Core
from proa.engine.instance import Instance, Record
from proa.errors import Conflict, Invalid, NotFound, ProaError
from proa.isolation import later
from proa.isolation.base import Running
from proa.network.service import Networks
from proa.network.user import Network
from proa.resources import Link
from proa.spec import Endpoint, Spec

BRIDGE, NONE = "bridge", "none"
HOSTS = "/etc/hosts"
INTERFACES = 32  # of one instance

_refreshing: set[tuple[int, str]] = set()
_lock = threading.Lock()
_telling = threading.Lock()  # one network at a time is told
SETTLE_SECONDS = 0.05
MEMBER_SECONDS = 0.002


def endpoints(spec: Spec) -> tuple[Endpoint, ...]:
    """The networks a spec asks for, the first one for the published ports."""
    if spec.network == NONE:
        return ()
    return spec.endpoints or (Endpoint(spec.network),)


def checked(core: Core, spec: Spec) -> Spec:
    """The same with the networks' own names.  Raises NotFound, Invalid."""
    found = []
    for asked in endpoints(spec):
        if asked.network == BRIDGE:
            if asked.aliases or asked.address:
                what = "network-scoped alias" if asked.aliases else "user specified IP address"
                raise Invalid(f"{what} is supported only for containers in user defined networks")
            found.append(asked)
        else:
            found.append(replace(asked, network=core.user_networks.get(asked.network).name))
    if not found:
        return spec
    if len({item.network for item in found}) < len(found):
        raise Invalid("a network is named twice")
    plain = len(found) == 1 and found[0] == Endpoint(found[0].network)
    return replace(spec, network=found[0].network, endpoints=() if plain else tuple(found))


def service(core: Core, name: str) -> Networks:
    """Who gives a network's links.  Raises NotFound."""
    if name == BRIDGE:
        return core.networks
    return core.user_networks.links(core.user_networks.get(name))


def id_of(core: Core, name: str) -> str:
    """A network's id; of one that is gone its name."""
    if name in (BRIDGE, NONE):
        return builtin_id(name)
    with suppress(NotFound):
        return core.user_networks.get(name).id
    return name


def builtin_id(name: str) -> str:
    """The id of a network that is always there."""
    return hashlib.sha256(f"proa network {name}".encode()).hexdigest()


# -- start and end --------------------------------------------------------------------------------


def acquire(core: Core, instance: Instance, undo: ExitStack) -> tuple[Link, ...]:
    """A link in every network asked for; only the first that leads out is the way out."""
    undo.callback(rest, core, instance)
    found: list[Link] = []
    instance.record.interfaces = {}
    for number, asked in enumerate(endpoints(instance.spec)):
        name = f"eth{number}"
        link = service(core, asked.network).link(instance.id, name, asked.address)
        if any(other.gateway for other in found):
            link = replace(link, gateway="")
        found.append(link)
        instance.record.interfaces[asked.network] = name
    return tuple(found)


def publish(core: Core, instance: Instance, links: tuple[Link, ...]) -> tuple[int, ...]:
    """Publish its ports by the first network that leads out; descriptors that hold them."""
    ways = zip(endpoints(instance.spec), links, strict=True)
    name, link = next(((e.network, link) for e, link in ways if link.gateway), ("", None))
    if link is None:
        return ()
    address = link.address.partition("/")[0]
    published = service(core, name).publish(instance.id, address, instance.spec.ports)
    return tuple(port.holder_fd for port in published)


def release(core: Core, instance_id: str) -> None:
    """Give back all addresses and ports of an instance; none is fine."""
    core.networks.unpublish(instance_id)
    core.networks.release(instance_id)
    core.user_networks.release(instance_id)


def rest(core: Core, instance: Instance) -> None:
    """Give back what one that is stopped does not keep.

    A machine with a system of its own keeps its addresses, and so its cards': that system has them
    in its files.
    """
    if not instance.spec.hardware.disk:
        release(core, instance.id)
        return
    for asked in endpoints(instance.spec):
        with suppress(NotFound):
            service(core, asked.network).unpublish(instance.id)


def keepers(core: Core) -> set[str]:
    """Instances whose addresses are theirs now."""
    kept = (states.SUSPENDED,)
    return {
        item.id for item in core.all() if item.live or item.state in kept or item.spec.hardware.disk
    }


def leave_home(core: Core, record: Record) -> None:
    """A vm with another engine's address is over: that engine may give it away again."""
    home, record.foreign = record.foreign.get("home"), {}
    if home:
        core.later(lambda: wire.tell(str(home), f"POST {wire.PATH}/ended?id={record.id}"))


def present(core: Core, instance: Instance) -> dict[str, Link]:
    """The links an instance has now, by network."""
    if instance.record.foreign and instance.live:
        own = {key: value for key, value in instance.record.foreign.items() if key != "home"}
        return {BRIDGE: Link(**own)}
    found: dict[str, Link] = {}
    for network, name in instance.record.interfaces.items():
        with suppress(NotFound):
            link = service(core, network).link_of(instance.id, name)
            if link is not None:
                found[network] = link
    if not instance.record.interfaces and instance.live:  # started by an engine without them
        link = core.networks.link_of(instance.id)
        return {BRIDGE: link} if link is not None else {}
    return found


# -- while it runs --------------------------------------------------------------------------------


def connect(core: Core, instance: Instance, asked: Endpoint) -> None:
    """Join a network, at once when it runs, and at every start from then on."""
    with instance.lock:
        spec = instance.spec
        if spec.network == NONE:
            raise Conflict(
                "container cannot be connected to multiple networks with one of the networks in "
                "private (none) mode"
            )
        joined = _joined(instance)
        if asked.network in joined:
            raise Conflict(
                f"endpoint with name {instance.name} already exists in network {asked.network}"
            )
        wanted = checked(core, replace(spec, endpoints=(*joined.values(), asked)))
        if instance.running is not None:
            _plug(core, instance, wanted.endpoints[-1] if wanted.endpoints else asked)
        instance.record.spec = replace(wanted, network=spec.network)
        core.save(instance)
        with suppress(ProaError):
            write_hosts(core, instance)  # it knows the others at once
    changed(core, (asked.network,))


def _joined(instance: Instance) -> dict[str, Endpoint]:
    """What it is in now: when it runs not always what its spec asks for."""
    asked = {item.network: item for item in endpoints(instance.spec)}
    if instance.running is None:
        return asked
    return {name: asked.get(name, Endpoint(name)) for name in instance.record.interfaces}


def _plug(core: Core, instance: Instance, asked: Endpoint) -> None:
    running = _running(instance)
    taken = set(instance.record.interfaces.values())
    # Never eth0 again: a vm's own card stays in it, switched off.
    name = next(f"eth{n}" for n in range(1, INTERFACES) if f"eth{n}" not in taken)
    has_way_out = any(link.gateway for link in present(core, instance).values())
    giver = service(core, asked.network)
    link = giver.link(instance.id, name, asked.address)
    try:
        running.plug(replace(link, gateway="") if has_way_out else link)
        if instance.spec.hardware.disk:
            core.networks.serve(link)
    except BaseException:
        giver.release(instance.id)
        raise
    instance.record.interfaces[asked.network] = name


def disconnect(core: Core, instance: Instance, network: str) -> None:
    """Leave a network."""
    with instance.lock:
        joined = _joined(instance)
        if network not in joined:
            raise Conflict(f"container {instance.id} is not connected to network {network}")
        rest = tuple(item for name, item in joined.items() if name != network)
        if instance.running is not None:
            _unplug(core, instance, network)
        instance.record.spec = replace(instance.spec, endpoints=rest)
        core.save(instance)
    changed(core, (network, *(item.network for item in rest)))


def _unplug(core: Core, instance: Instance, network: str) -> None:
    running, giver = _running(instance), service(core, network)
    before = present(core, instance)
    link = before.pop(network, None)
    if link is not None:
        running.unplug(link)
    giver.unpublish(instance.id)
    giver.release(instance.id)
    del instance.record.interfaces[network]
    way_out = next((other for other in before.values() if other.gateway), None)
    own_system = bool(instance.spec.hardware.disk)  # which finds its way by DHCP
    if link is not None and link.gateway and way_out is not None and not own_system:
        with suppress(ProaError):  # it was the way out already
            later.run(running, (plan.Route(way_out.gateway),))


def _running(instance: Instance) -> Running:
    if instance.state == states.PAUSED or instance.running is None:
        raise Conflict(f"Container {instance.name} is paused, unpause it first")
    return instance.running


# -- names ----------------------------------------------------------------------------------------


def hosts(core: Core, instance: Instance) -> str:
    """Lines of /etc/hosts for all in its networks, by name, alias and short id."""
    networks = [name for name in instance.record.interfaces if name != BRIDGE]
    return "".join(_lines(core, name) for name in networks)


def _lines(core: Core, network: str) -> str:
    lines = []
    with suppress(NotFound):
        for member, address in sorted(service(core, network).members().items()):
            with suppress(NotFound):
                lines.append(f"{address}\t{' '.join(_names(core.get(member), network))}\n")
    return "".join(lines)


def _names(instance: Instance, network: str) -> list[str]:
    aliases = next((e.aliases for e in endpoints(instance.spec) if e.network == network), ())
    return list(dict.fromkeys((instance.name, *aliases, instance.id[:12])))


def changed(core: Core, networks: tuple[str, ...]) -> None:
    """Tell the members of these networks, in a moment, who is in them now.

    The more members, the longer the moment: many that come together are told of together.
    """
    for network in networks:
        key = (id(core), network)
        with _lock:
            if network == BRIDGE or key in _refreshing:
                continue
            _refreshing.add(key)
        with suppress(NotFound):
            wait = SETTLE_SECONDS + MEMBER_SECONDS * len(service(core, network).members())
            timer = threading.Timer(wait, partial(core.later, partial(_refresh, core, network)))
            timer.daemon = True
            timer.start()
            continue
        with _lock:
            _refreshing.discard(key)


def _refresh(core: Core, network: str) -> None:
    with _lock:
        _refreshing.discard((id(core), network))
    with _telling, suppress(NotFound):
        lines: dict[str, str] = {}
        for member in service(core, network).members():
            with suppress(ProaError):
                write_hosts(core, core.get(member), lines)


def write_hosts(core: Core, instance: Instance, lines: dict[str, str] | None = None) -> None:
    """Bring the /etc/hosts of a running instance up to date, unless its owner has mounted one.

    `lines` keeps what was found of networks, for the next instance.
    """
    from proa.engine.lifecycle import core_files  # which needs this module

    spec = instance.spec
    if spec.hardware.disk or any(mount.target == HOSTS for mount in spec.mounts):
        return
    with instance.lock:
        if instance.state != states.RUNNING or instance.running is None:
            return
        links = tuple(present(core, instance).values())
        known = {} if lines is None else lines
        for network in instance.record.interfaces:
            if network != BRIDGE and network not in known:
                known[network] = _lines(core, network)
        told = "".join(known.get(network, "") for network in instance.record.interfaces)
        content = core_files(core, spec, links).hosts + told
        if content == instance.hosts:
            return
        steps = (plan.Cover(HOSTS, "0644", content),)
        later.run(instance.running, steps)
        instance.hosts = content


def with_names(core: Core, instance: Instance, files: compile.Files) -> compile.Files:
    """The files an instance starts with, the others' names added."""
    instance.hosts = files.hosts + hosts(core, instance)
    return replace(files, hosts=instance.hosts)


def users(core: Core, network: Network) -> list[Instance]:
    """Instances that are in a network now, or are to be when they start."""
    return [
        item
        for item in core.all()
        if network.name in (item.record.interfaces if item.live else {})
        or (not item.live and any(e.network == network.name for e in endpoints(item.spec)))
    ]
