"""The engine's nftables table: masquerading, published ports, and what may be forwarded.

The rules never change; publishing a port adds one element to a map.  `any_port` is for ports
published on every address, `one_port` for those on one.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from proa.errors import HostError, Unsupported
from proa.host import nftables, process
from proa.network.ports import ANY, Mapping

_RULES = """
add table ip {table}
delete table ip {table}
table ip {table} {{
    map any_port {{
        type inet_proto . inet_service : ipv4_addr . inet_service
    }}
    map one_port {{
        type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
    }}
    chain publish {{
        dnat ip to ip daddr . meta l4proto . th dport map @one_port
        dnat ip to meta l4proto . th dport map @any_port
    }}
    chain prerouting {{
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local meta l4proto {{ tcp, udp }} jump publish
    }}
    chain output {{
        type nat hook output priority -100; policy accept;
        fib daddr type local meta l4proto {{ tcp, udp }} jump publish
    }}
    chain postrouting {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} oifname != "{bridge}" masquerade
        ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
        ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
    }}
    chain spoofed {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{bridge}" ip saddr != {subnet} drop
        iifname "{bridge}" ip daddr 127.0.0.0/8 drop
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        {internal}
        iifname "{bridge}" accept
        oifname "{bridge}" ct state established,related accept
        oifname "{bridge}" ct status dnat accept
        oifname "{bridge}" drop
    }}
}}
"""


@dataclass(frozen=True)
class Firewall:
    """The table of one engine."""

    table: str
    bridge: str
    internal: bool = False

    def install(self, subnet: IPv4Network, mappings: Iterable[Mapping]) -> None:
        """Put the whole table in place of what was there, in one transaction."""
        internal = f'iifname "{self.bridge}" oifname != "{self.bridge}" drop'
        rules = _RULES.format(
            table=self.table, bridge=self.bridge, subnet=subnet,
            internal=internal if self.internal else "",
        )  # fmt: skip
        nft(rules + self._elements(mappings))
        self._admit()

    def add(self, mappings: Iterable[Mapping]) -> None:
        """Publish ports."""
        nftables.add_elements(self.table, [packed(row) for row in mappings])

    def remove(self, mappings: Iterable[Mapping]) -> None:
        """Take ports back; ones that are gone already are fine."""
        nftables.delete_elements(self.table, [packed(row) for row in mappings])

    def replace(self, mappings: Iterable[Mapping]) -> None:
        """Make these the only published ports."""
        flushed = "".join(f"flush map ip {self.table} {m}\n" for m in ("any_port", "one_port"))
        nft(flushed + self._elements(mappings))

    def delete(self) -> None:
        """Remove the table and what was added to the host's own rules; nothing there is fine."""
        nft(f"add table ip {self.table}\ndelete table ip {self.table}\n")
        if shutil.which("iptables"):
            for rule in self._admissions():
                with suppress(HostError):
                    process.run(["iptables", "-w", "-D", *rule])

    def _elements(self, mappings: Iterable[Mapping]) -> str:
        return "".join(f"add element ip {self.table} {element(row)}\n" for row in mappings)

    # -- the host's own rules -------------------------------------------------------------------

    def _admit(self) -> None:
        """Let our traffic pass where somebody (docker, ufw) filters forwarding by iptables.

        An accept in our table cannot overrule a drop in theirs; what may come in is still decided
        by our `forward` chain.
        """
        if not shutil.which("iptables"):
            return
        with suppress(HostError):  # best effort: a host without iptables support has no such rules
            if process.run(["iptables", "-w", "-S", "FORWARD"]).split() == _OPEN:
                return
            for rule in self._admissions():
                self._insert(rule)

    def _insert(self, rule: list[str]) -> None:
        try:
            process.run(["iptables", "-w", "-C", *rule])
        except HostError:
            process.run(["iptables", "-w", "-I", *rule])

    def _admissions(self) -> list[list[str]]:
        return [["FORWARD", way, self.bridge, "-j", "ACCEPT"] for way in ("-i", "-o")]


_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_OPEN = ["-P", "FORWARD", "ACCEPT"]


def element(row: Mapping) -> str:
    """A mapping as map name and element, in words for `nft`."""
    value = f"{row.address} . {row.port}"
    if row.host_address == ANY:
        return f"any_port {{ {row.protocol} . {row.host_port} : {value} }}"
    return f"one_port {{ {row.host_address} . {row.protocol} . {row.host_port} : {value} }}"


def packed(row: Mapping) -> nftables.Element:
    """The same in bytes for the kernel."""
    key = _padded(bytes([_PROTOCOLS[row.protocol]])) + _padded(row.host_port.to_bytes(2, "big"))
    value = IPv4Address(row.address).packed + _padded(row.port.to_bytes(2, "big"))
    if row.host_address == ANY:
        return nftables.Element("any_port", key, value)
    return nftables.Element("one_port", IPv4Address(row.host_address).packed + key, value)


def _padded(data: bytes) -> bytes:
    return data.ljust(4, b"\0")


def nft(script: str) -> None:
    """Run a script as one transaction."""
    if not shutil.which("nft"):
        raise Unsupported("the program 'nft' is not installed", hint="install nftables")
    process.run(["nft", "-f", "-"], input=script)
