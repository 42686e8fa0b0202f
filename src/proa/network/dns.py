"""Which name servers an instance can use: the host's, but for those only the host can reach."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_PUBLIC = ("8.8.8.8", "8.8.4.4")  # as Docker does where the host names none


def parse(text: str) -> tuple[str, ...]:
    """The IPv4 servers of a resolv.conf that are not the host's loopback."""
    found: list[str] = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            server = ip_address(words[1])
        except ValueError:
            continue
        if server.version == 4 and not server.is_loopback:
            found.append(str(server))
    return tuple(found)


def nameservers() -> tuple[str, ...]:
    """The servers to write into an instance's resolv.conf."""
    for path in _FILES:
        try:
            found = parse(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if found:
            return found
    return _PUBLIC
