"""What a machine is for, guessed from its enabled services: a command, ports, a Containerfile."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from proa.printable import clean

# Of every machine, and no reason to have one.
_USUAL = re.compile(
    r"(systemd-|getty|serial-getty|console-|dbus|cron|crond|ssh|sshd|rsyslog|syslog|networking|"
    r"NetworkManager|network|wpa_supplicant|apparmor|auditd|chrony|ntp|firewalld|ufw|nftables|"
    r"iptables|e2scrub|apt-|dpkg-|man-db|logrotate|fstrim|unattended|cloud-|qemu-guest|keyboard-|"
    r"multipath|lvm2|open-iscsi|iscsid|polkit|udisks|accounts-daemon|snapd|rngd|tuned|irqbalance|"
    r"open-vm|vgauth|grub|selinux|kdump|sssd|rpcbind|dnf-|mdmonitor|smartd|acpid|anacron|atd|"
    r"haveged|resolvconf|remote-|ifup|isc-dhcp-client|blk-availability|import-state|loadmodules|"
    r"nis-|sysstat|pollinate|finalrd|thermald|ModemManager|gpu-|secureboot|ua-|ubuntu-)"
)
# Service: ports, and its command where the unit's own would leave the foreground.
_KNOWN: dict[str, tuple[str, tuple[str, ...]]] = {
    "nginx": ("80", ("nginx", "-g", "daemon off;")),
    "apache2": ("80", ("apachectl", "-D", "FOREGROUND")),
    "httpd": ("80", ("httpd", "-D", "FOREGROUND")),
    "lighttpd": ("80", ("lighttpd", "-D", "-f", "/etc/lighttpd/lighttpd.conf")),
    "caddy": ("80 443", ()), "haproxy": ("80", ()), "varnish": ("6081", ()),
    "postgresql": ("5432", ()), "mysql": ("3306", ()), "mariadb": ("3306", ()),
    "mysqld": ("3306", ()), "redis-server": ("6379", ("redis-server", "--daemonize", "no")),
    "redis": ("6379", ()), "memcached": ("11211", ()), "mongod": ("27017", ()),
    "rabbitmq-server": ("5672", ()), "named": ("53/udp", ()), "bind9": ("53/udp", ()),
    "dnsmasq": ("53/udp", ("dnsmasq", "--keep-in-foreground")), "postfix": ("25", ()),
    "exim4": ("25", ()), "dovecot": ("143", ()), "vsftpd": ("21", ()), "slapd": ("389", ()),
    "tomcat9": ("8080", ()), "tomcat10": ("8080", ()), "grafana-server": ("3000", ()),
    "prometheus": ("9090", ()), "elasticsearch": ("9200", ()), "docker": ("", ()),
}  # fmt: skip
_EXEC = re.compile(r"^ExecStart\s*=\s*[-@:+!]*(.+?)\s*$", re.MULTILINE)
_KIND = re.compile(r"^Type\s*=\s*(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Guess:
    """What to run; every part has its reason among `notes`."""

    command: tuple[str, ...]
    ports: tuple[str, ...]
    notes: tuple[str, ...]


def guess(units: Mapping[str, str], enabled: Sequence[str], shell: str) -> Guess:
    """`units` are unit files by name, `enabled` names of services, `shell` for want of better."""
    names = sorted({name.removesuffix(".service") for name in enabled})
    found = [name for name in names if not _USUAL.match(name)]
    found.sort(key=lambda name: name not in _KNOWN)
    ports = tuple(port for name in found for port in _KNOWN.get(name, ("", ()))[0].split())
    notes = [f"port of the enabled service '{name}'" for name in found if _ports_of(name)]
    for name in found:
        command, why = _command(name, units.get(f"{name}.service", ""))
        if command:
            rest = [other for other in found if other != name]
            if rest:
                notes.append(f"also enabled, each for an image of its own: {', '.join(rest)}")
            return Guess(command, ports, (*notes, why))
    why = "no enabled service was found that the machine is for: a shell"
    return Guess((shell,) if shell else (), ports, (*notes, why if shell else "no command found"))


def _ports_of(name: str) -> str:
    return _KNOWN.get(name, ("", ()))[0]


def _command(name: str, unit: str) -> tuple[tuple[str, ...], str]:
    known = _KNOWN.get(name, ("", ()))[1]
    if known:
        return known, f"the enabled service '{name}', in the foreground"
    line, kind = _EXEC.search(unit), _KIND.search(unit)
    if line is None or line[1].endswith("\\") or "%" in line[1]:
        return (), ""
    if kind and kind[1] == "oneshot":
        return (), ""
    try:
        words = shlex.split(line[1])
    except ValueError:
        return (), ""
    if any(word.startswith("$") for word in words[:1]):
        return (), ""
    doubt = (
        "; it forks: find its option for the foreground" if kind and kind[1] == "forking" else ""
    )
    unset = "; variables of its unit are not set" if "$" in line[1] else ""
    return tuple(words), f"ExecStart of the enabled service '{name}'{doubt}{unset}"


def containerfile(found: Guess, about: str, left_out: Sequence[str]) -> str:
    """A proposal: FROM scratch and the tree, each guess with its reason above it."""
    lines = [
        f"# Proposed from {clean(about)}.",
        "# rootfs.tar is the only layer of the image made with this file.",
        f"# Left out: {', '.join(left_out) or 'nothing'}.",
        "FROM scratch",
        "ADD rootfs.tar /",
    ]
    lines += [f"# A guess: {clean(note)}." for note in found.notes]
    lines += [f"EXPOSE {port}" for port in found.ports]
    if found.command:
        lines.append(f"CMD {json.dumps(list(found.command))}")
    return "\n".join(lines) + "\n"
