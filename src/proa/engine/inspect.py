"""An instance in Docker's words (`inspect`, `ps`), plus a `Proa` section with the whole truth."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from proa.engine import health, links
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.engine.limits import THROTTLES
from proa.errors import NotFound
from proa.resources import Link
from proa.spec import Endpoint, Limits

NEVER = "0001-01-01T00:00:00Z"


def moment(nanoseconds: int) -> str:
    """RFC 3339 with nanoseconds, as Docker prints times."""
    if not nanoseconds:
        return NEVER
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09}Z"


def inspect(core: Core, instance: Instance) -> dict[str, Any]:
    """Docker's ContainerJSON."""
    record, spec = instance.record, instance.spec
    process = spec.process
    directory = core.directory(record.id)
    body = {
        key: value
        for key, value in record.body.items()
        if key not in ("HostConfig", "NetworkingConfig")
    }
    config = {
        **body, "Hostname": spec.hostname, "User": process.user, "Tty": process.terminal,
        "OpenStdin": process.stdin, "Env": list(process.environment), "Image": spec.image,
        "WorkingDir": process.directory if process.directory != "/" else "",
        "Labels": spec.labels, "StopSignal": spec.stop_signal,
        "Entrypoint": body.get("Entrypoint"), "Cmd": body.get("Cmd") or list(process.arguments),
    }  # fmt: skip
    if spec.health.test:
        config["Healthcheck"] = health.told(spec.health)
    host = {**(record.body.get("HostConfig") or {})}
    if not (host.get("LogConfig") or {}).get("Type"):
        host["LogConfig"] = {"Type": "json-file", "Config": {}}  # the one whose logs clients read
    host |= {
        "Isolation": spec.isolation,
        "NetworkMode": spec.network,
        "AutoRemove": spec.remove,
        **_limits(spec.limits),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
    }
    return {
        "Id": record.id, "Created": moment(record.created_ns), "Path": process.arguments[0],
        "Args": list(process.arguments[1:]), "State": state(instance), "Image": record.image_id,
        "ResolvConfPath": "", "HostnamePath": "", "HostsPath": "",
        "LogPath": str(directory / "log"), "Name": "/" + record.name, "RestartCount": 0,
        "Driver": "overlay", "Platform": "linux", "MountLabel": "", "ProcessLabel": "",
        "AppArmorProfile": "", "ExecIDs": instance.exec_ids or None, "HostConfig": host,
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": str(directory / "upper")}},
        "Mounts": mounts(core, instance), "Config": config,
        "NetworkSettings": network_settings(core, instance),
        "Proa": {
            "Isolation": spec.isolation, "Place": record.place, "Idle": instance.standby.dozing,
            **_capitals(record.facts), **({"Advice": record.advice} if record.advice else {}),
        },
    }  # fmt: skip


def _limits(limits: Limits) -> dict[str, Any]:
    """Docker's Resources; processors in the words they were asked in."""
    period = limits.cpu_period_us
    throttles = {
        field: [{"Path": t.device, "Rate": t.rate} for t in limits.throttles if t.kind == kind]
        for field, kind in THROTTLES
    }
    return {
        "Memory": limits.memory_bytes, "MemoryReservation": limits.reservation_bytes,
        "MemorySwap": limits.swap_bytes or limits.memory_bytes,
        "NanoCpus": 0 if period else round(limits.cpus * 1e9),
        "CpuQuota": round(limits.cpus * period), "CpuPeriod": period,
        "CpuShares": limits.cpu_shares, "CpusetCpus": limits.cpuset,
        "CpusetMems": limits.memory_nodes, "PidsLimit": limits.pids or None,
        "BlkioWeight": limits.io_weight, **throttles,
    }  # fmt: skip


def _capitals(facts: dict[str, str]) -> dict[str, str]:
    return {key.title().replace("_", "").replace(" ", ""): value for key, value in facts.items()}


def state(instance: Instance) -> dict[str, Any]:
    """Docker's State."""
    record = instance.record
    running = instance.held
    pid = running.saved.get("pid", 0) if running is not None else 0
    checked = {"Health": _health(instance)} if record.health else {}
    return {
        "Status": _status_word(instance),
        "Running": record.state in (states.RUNNING, states.PAUSED),
        "Paused": record.state == states.PAUSED, "Restarting": False,
        "OOMKilled": record.oom_killed, "Dead": False, "Pid": pid, "ExitCode": record.exit_code,
        "Error": record.error, "StartedAt": moment(record.started_ns),
        "FinishedAt": moment(record.finished_ns), **checked,
    }  # fmt: skip


def health_status(instance: Instance) -> str:
    """Empty where none is checked; one that has ended is unhealthy, as Docker has it."""
    known = instance.record.health
    if known and instance.state == states.EXITED:
        return health.UNHEALTHY
    return str(known.get("Status", ""))


def _health(instance: Instance) -> dict[str, Any]:
    """Docker's Health."""
    known = instance.record.health
    log = [
        {**entry, "Start": moment(entry["Start"]), "End": moment(entry["End"])}
        for entry in known["Log"]
    ]
    return {**known, "Status": health_status(instance), "Log": log}


def _status_word(instance: Instance) -> str:
    if instance.record.removing:
        return "removing"
    return states.CREATED if instance.state == states.STARTING else str(instance.state)


def mounts(core: Core, instance: Instance) -> list[dict[str, Any]]:
    """Docker's MountPoints."""
    anonymous = iter(instance.record.volumes)
    found = []
    for mount in instance.spec.mounts:
        entry = {
            "Type": mount.kind,
            "Source": mount.source,
            "Destination": mount.target,
            "Mode": "ro" if mount.readonly else "",
            "RW": not mount.readonly,
            "Propagation": "rprivate" if mount.kind == "bind" else "",
        }
        if mount.kind == "volume":
            name = mount.source or next(anonymous)
            entry |= {"Name": name, "Driver": "local", "Source": str(core.volumes.path(name))}
        found.append(entry)
    return found


def network_settings(core: Core, instance: Instance) -> dict[str, Any]:
    """Docker's NetworkSettings: the networks it is in, or would be in when started."""
    present = links.present(core, instance) if instance.live else {}
    asked = {item.network: item for item in links.endpoints(instance.spec)}
    names = list(present if instance.live else asked) or [instance.spec.network]
    endpoints = {
        name: _endpoint(core, instance, name, present.get(name), asked.get(name)) for name in names
    }
    ports: dict[str, Any] = {}
    for name in present:
        with suppress(NotFound):
            for published in links.service(core, name).published(instance.id):
                key = f"{published.port}/{published.protocol}"
                host = published.host_address or "0.0.0.0"
                row = {"HostIp": host, "HostPort": str(published.host_port)}
                ports.setdefault(key, []).append(row)
    own = endpoints.get(links.BRIDGE) or _endpoint(core, instance, "", None, None)
    return {
        "Bridge": "", "SandboxID": instance.record.place, "SandboxKey": "", "Ports": ports,
        "Gateway": own["Gateway"], "IPAddress": own["IPAddress"],
        "IPPrefixLen": own["IPPrefixLen"], "MacAddress": own["MacAddress"],
        "Networks": endpoints,
    }  # fmt: skip


def _endpoint(
    core: Core, instance: Instance, network: str, link: Link | None, asked: Endpoint | None
) -> dict[str, Any]:
    """Docker's EndpointSettings."""
    address, _, prefix = link.address.partition("/") if link else ("", "", "0")
    aliases = [*(asked.aliases if asked else ()), instance.id[:12]]
    ours = network in ("", links.BRIDGE, links.NONE)
    ipam = {"IPv4Address": asked.address} if asked and asked.address else None
    return {
        "IPAMConfig": ipam, "Links": None, "Aliases": None if ours else aliases,
        "DriverOpts": None, "NetworkID": links.id_of(core, network) if network else "",
        "EndpointID": instance.id if link else "", "Gateway": link.gateway if link else "",
        "IPAddress": address, "IPPrefixLen": int(prefix), "IPv6Gateway": "",
        "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "MacAddress": link.mac if link else "",
        "DNSNames": None if ours else [instance.name, *aliases],
    }  # fmt: skip


def summary(core: Core, instance: Instance) -> dict[str, Any]:
    """Docker's entry of the container list."""
    settings = network_settings(core, instance)
    ports = []
    for key, bindings in settings["Ports"].items():
        number, _, protocol = key.partition("/")
        ports += [
            {
                "IP": item["HostIp"],
                "PrivatePort": int(number),
                "Type": protocol,
                "PublicPort": int(item["HostPort"]),
            }
            for item in bindings
        ]
    return {
        "Id": instance.id, "Names": ["/" + instance.name], "Image": instance.image_name,
        "ImageID": instance.image_id, "Command": " ".join(instance.spec.process.arguments),
        "Created": instance.created // 1_000_000_000, "Ports": ports,
        "Labels": instance.spec.labels,
        "State": _status_word(instance), "Status": status_text(instance),
        "HostConfig": {"NetworkMode": instance.spec.network, "Isolation": instance.isolation},
        "NetworkSettings": {"Networks": settings["Networks"]}, "Mounts": mounts(core, instance),
        "Proa": _emulation(instance.record.facts),
    }  # fmt: skip


def _emulation(facts: dict[str, str]) -> dict[str, str]:
    """What an instance emulated last is made for; nothing for one like the host."""
    return {"Platform": facts["platform"]} if "emulated_by" in facts else {}


def status_text(instance: Instance) -> str:
    """`Up 3 minutes`, `Exited (0) 2 hours ago`, as Docker words it."""
    record = instance.record
    if record.state in (states.RUNNING, states.PAUSED):
        more = " (Paused)"
        if record.state == states.RUNNING:
            more = _health_text(instance) + " (idle)" * instance.standby.dozing
        return f"Up {ago(record.started_ns)}{more}"
    if record.state == states.SUSPENDED:
        return "Suspended"
    if record.state == states.EXITED:
        return f"Exited ({record.exit_code}) {ago(record.finished_ns)} ago"
    return "Removal In Progress" if record.removing else "Created"


def _health_text(instance: Instance) -> str:
    status = health_status(instance)
    return status and f" ({'health: ' * (status == health.STARTING)}{status})"


def ago(then_ns: int) -> str:
    """A duration until now in Docker's rough words (units.HumanDuration)."""
    seconds = max(0, int(time.time() - then_ns / 1e9))
    if seconds < 1:
        return "Less than a second"
    for limit, unit, size in (
        (60, "second", 1),
        (3600, "minute", 60),
        (172800, "hour", 3600),
        (1209600, "day", 86400),
        (5184000, "week", 604800),
    ):
        if seconds < limit:
            count = seconds // size
            if count == 1:
                return {
                    "second": "1 second",
                    "minute": "About a minute",
                    "hour": "About an hour",
                }.get(unit, f"1 {unit}")
            return f"{count} {unit}s"
    return f"{seconds // 2592000} months" if seconds < 63072000 else f"{seconds // 31536000} years"
