"""What of a machine's files an image takes, and what every file counts as.  Pure.

Left out is what belongs to the machine and not to its software: kernel, boot loader, swap, state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LIB = r"(?:usr/)?lib"
# Category, whether directories stay, pattern of whole paths; the first row that matches counts.
_LEFT_OUT = (
    ("initramfs", False, r"boot/(?:.*/)?init(?:rd|ramfs)[^/]*|initrd\.img(?:\.old)?"),
    ("boot loader", False,
     r"(?:boot|efi)/(?:.*/)?(?:grub2?|efi|EFI|loader|syslinux|extlinux)(?:/.*)?"),
    ("boot loader", False, rf"{_LIB}/(?:grub|systemd/boot|shim|syslinux)(?:/.*)?"),
    ("kernel and modules", False, rf"boot/.+|efi/.+|vmlinuz(?:\.old)?|{_LIB}/modules/.+"),
    ("firmware", False, rf"{_LIB}/firmware/.+"),
    ("swap", False, r"swapfile\d*|swap\.img|\.?swap/.+|var/swap(?:file)?"),
    ("machine state", False,
     r"etc/(?:machine-id|fstab|crypttab|adjtime)|var/lib/dbus/machine-id"),
    ("machine state", False, r"etc/ssh/ssh_host_[^/]*|etc/udev/rules\.d/70-persistent-[^/]*"),
    ("machine state", False, r"var/lib/(?:systemd|urandom)/random-seed|boot/\.[^/]*"),
    ("machine state", True, r"var/lib/(?:dhcp|dhclient|dhcpcd|NetworkManager|cloud|private)/.+"),
    ("machine state", True,
     r"var/lib/systemd/(?:network|timers|timesync|coredump|backlight|rfkill)/.+"),
    ("logs", True, r"var/log/.+"),
    ("package lists", True, r"var/lib/apt/lists/.+|var/lib/dnf/.+"),
    ("caches", True, r"var/cache/.+|var/tmp/.+|tmp/.+"),
    ("run time", False, r"(?:run|dev|proc|sys|var/run|var/lock)/.+|(?:.*/)?lost\+found(?:/.*)?"),
)  # fmt: skip
_KEPT = (
    ("home", r"home/.*|root/.*"),
    ("databases", r"var/lib/(?:mysql|mariadb|postgresql|pgsql|mongodb?|redis|ldap|influxdb|couchdb|"
                  r"elasticsearch|etcd|rabbitmq|cassandra)/.*"),
    ("package database", r"var/lib/(?:dpkg|rpm|pacman)/.*|usr/lib/sysimage/rpm/.*|lib/apk/.*"),
)  # fmt: skip
_LEFT_OUT_RULES = tuple((name, stays, re.compile(pattern)) for name, stays, pattern in _LEFT_OUT)
_KEPT_RULES = tuple((name, re.compile(pattern)) for name, pattern in _KEPT)
PACKAGES, OTHER = "packages", "files of no package"


@dataclass(frozen=True)
class Verdict:
    """Whether a path is kept; its category, empty when only its package can say."""

    kept: bool
    category: str


def judge(path: str, *, directory: bool) -> Verdict:
    """The verdict on a path without a slash in front."""
    for category, stays, pattern in _LEFT_OUT_RULES:
        if pattern.fullmatch(path):
            return Verdict(stays and directory, category)
    if path.rpartition("/")[2].startswith(".wh."):
        return Verdict(False, "names that layers use themselves")
    for category, pattern in _KEPT_RULES:
        if pattern.fullmatch(path):
            return Verdict(True, category)
    return Verdict(True, "")
