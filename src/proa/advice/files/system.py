"""Which system it is: release, init, kernels, boot loader, modules, package database.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from proa.advice.facts import Fact
from proa.advice.tree import DIRECTORY, Tree, below, first, text
from proa.printable import clean

_PACKAGES_MAXIMUM = 16 << 20
_SHELLS = ("bin/sh", "bin/bash", "bin/dash", "bin/busybox", "usr/bin/sh", "busybox/sh")
_MANAGERS = (
    "usr/bin/dpkg", "usr/bin/apt", "sbin/apk", "usr/bin/rpm", "usr/bin/dnf", "usr/bin/pacman",
    "usr/bin/zypper", "bin/opkg",
)  # fmt: skip
_LOADERS = (
    "boot/grub/grub.cfg", "boot/grub2/grub.cfg", "boot/efi/EFI", "boot/EFI", "EFI", "efi/EFI",
    "boot/loader/entries", "boot/extlinux/extlinux.conf", "boot/syslinux", "bootmgr",
)  # fmt: skip
_OTHER_SYSTEMS = {  # a path that only this system has
    "Windows/System32": "windows", "Files/Windows/System32": "windows",
    "bin/freebsd-version": "freebsd", "boot/kernel/kernel": "freebsd", "netbsd": "netbsd",
    "bsd": "openbsd", "System/Library/CoreServices": "darwin", "platform/i86pc/kernel": "solaris",
}  # fmt: skip
_KERNEL = re.compile(r"(?:vmlinu[zx]|kernel|bzImage|Image)-(\d[\w.+~-]*)")
_MODULES_FILES = ("etc/modules", "etc/modules-load.d", "usr/lib/modules-load.d",
                  "lib/modules-load.d", "run/modules-load.d")  # fmt: skip
# Loaded by a distribution's own packages, for machines; nothing that its owner asks for.
_USUAL_MODULES = frozenset({"loop", "fuse", "lp", "ppdev", "parport_pc", "msr", "i2c-dev"})
_LISTED = 50


def facts(tree: Tree) -> Iterator[Fact]:
    """All of them."""
    yield from _release(tree)
    yield from _other(tree)
    yield from _kernels(tree)
    yield from _modules(tree)
    loader = first(tree, _LOADERS)
    if loader:
        yield Fact("os.bootloader", True, f"/{loader}")
    shell, manager = first(tree, _SHELLS), first(tree, _MANAGERS)
    source = " and ".join(f"/{path}" for path in (shell, manager) if path)
    yield Fact("os.distroless", not source, source or "no shell, no package manager")
    yield from _packages(tree)


def _release(tree: Tree) -> Iterator[Fact]:
    path = first(tree, ("etc/os-release", "usr/lib/os-release"))
    if not path:
        return
    pairs = (line.partition("=") for line in text(tree, path).splitlines())
    values = {key.strip(): clean(value.strip().strip("\"'")) for key, _, value in pairs}
    for key, name in (("os.name", "ID"), ("os.version", "VERSION_ID")):
        if values.get(name):
            yield Fact(key, values[name], f"/{path} {name}")


def _other(tree: Tree) -> Iterator[Fact]:
    path = first(tree, tuple(_OTHER_SYSTEMS))
    if path:
        yield Fact("os.kind", _OTHER_SYSTEMS[path], f"/{path}")


def _kernels(tree: Tree) -> Iterator[Fact]:
    for directory in ("boot", ""):
        for name in tree.names(directory):
            found = _KERNEL.fullmatch(name)
            path = f"{directory}/{name}".strip("/")
            entry = tree.look(path)
            if found and entry is not None and entry.size > 0:
                yield Fact("os.kernel", clean(found[1], 60), f"/{path}")
                return


def _modules(tree: Tree) -> Iterator[Fact]:
    for directory in ("lib/modules", "usr/lib/modules"):
        versions = [
            name
            for name in tree.names(directory)[:_LISTED]
            if tree.look(f"{directory}/{name}/kernel")
            or tree.look(f"{directory}/{name}/modules.dep")
        ]
        if versions:
            found = tuple(clean(name, 60) for name in versions)
            yield Fact("os.modules", found, f"/{directory}")
            break
    loaded: list[str] = []
    sources: list[str] = []
    for path in _modules_files(tree):
        lines = (line.split("#")[0].split() for line in text(tree, path).splitlines())
        names = [clean(line[0], 60) for line in lines if line and line[0][0] not in ";"]
        names = [name for name in names if name not in _USUAL_MODULES]
        if names:
            loaded += names
            sources.append(f"/{path}")
    if loaded:
        yield Fact("os.modules_loaded", tuple(dict.fromkeys(loaded))[:_LISTED], ", ".join(sources))


def _modules_files(tree: Tree) -> Iterator[str]:
    for path in _MODULES_FILES:
        entry = tree.look(path)
        if entry is not None and entry.kind == DIRECTORY:
            yield from below(tree, path, ".conf")[:_LISTED]
        elif entry is not None:
            yield path


def _packages(tree: Tree) -> Iterator[Fact]:
    """How many, by dpkg's status file, distroless's directory, or apk's database."""
    data = tree.read("var/lib/dpkg/status", _PACKAGES_MAXIMUM)
    if data:
        count = data.count(b"\nStatus: install ok installed")
        yield Fact("packages.count", count, "/var/lib/dpkg/status")
        return
    parts = [name for name in tree.names("var/lib/dpkg/status.d") if not name.endswith(".md5sums")]
    if parts:
        yield Fact("packages.count", len(parts), "/var/lib/dpkg/status.d")
        return
    for path in ("lib/apk/db/installed", "usr/lib/apk/db/installed"):
        data = tree.read(path, _PACKAGES_MAXIMUM)
        if data:
            yield Fact("packages.count", (b"\n" + data).count(b"\nP:"), f"/{path}")
            return
