"""What makes two builds of the same packages differ is taken out of their files.

Logs, caches, backups, compiled bytecode, identities and secrets made by scripts; times are the
assembly's business.  A file system that scripts have written is hostile: descriptors only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from proa.image.layer import tree
from proa.image.layer.stream import write_all
from proa.image.packages.spec import Spec

_EMPTIED = re.compile(rb"(run|tmp|dev|proc|sys|var/tmp|var/run)/.*")
_GONE = re.compile(
    rb"|".join((
        rb"var/cache/(?!debconf/(config|templates|passwords)\.dat$).*",
        rb"var/log/((dpkg|alternatives|bootstrap|fontconfig|dnf.*|hawkey)\.log|apt/.*)",
        rb"var/lib/dpkg/(.*-old|(triggers/)?[Ll]ock.*)", rb"var/lib/apt/(lists|mirrors)/.*",
        rb"(var/lib|usr/lib/sysimage)/rpm/(__db.*|\..*|.*-(shm|wal))",
        rb"etc/((passwd|group|shadow|gshadow|subuid|subgid)-|\.pwd\.lock)",
        rb"etc/ssh/ssh_host_.*_key(\.pub)?",
        rb"etc/ssl/(private/ssl-cert-snakeoil\.key|certs/ssl-cert-snakeoil\.pem)",
        rb"var/lib/dbus/machine-id", rb"var/lib/systemd/(random-seed|catalog/database)",
        rb"(.*/)?__pycache__/.*", rb".*\.py[co]", rb"usr/sbin/policy-rc\.d",
    ))
)  # fmt: skip
_TRUNCATED = re.compile(rb"var/log/.*|etc/machine-id")
_DOCUMENTATION = re.compile(
    rb"usr/share/(doc/(?!.*/copyright$)|man/|info/|lintian/|linda/|groff/|bug/|gtk-doc/|doc-base/).*"
)
_TRANSLATION = re.compile(rb"usr/share/locale/([^/]+)/.*")
_PRUNED = re.compile(
    rb"usr/share/(doc|man|info|lintian|linda|groff|bug|gtk-doc|doc-base|locale)/.+"
    rb"|(.*/)?__pycache__|(run|tmp|dev|proc|sys|var/tmp)/.+"
)
_MAXIMUM_SHADOW_BYTES = 4 << 20
_DAY_SECONDS = 86400


@dataclass(frozen=True)
class _Rules:
    slim: bool
    translations: bool  # whether they are chosen
    locales: tuple[bytes, ...]

    def remove(self, path: bytes) -> bool:
        """Whether a file (anything that is no directory) goes."""
        if _EMPTIED.fullmatch(path) or _GONE.fullmatch(path):
            return True
        if self.slim and _DOCUMENTATION.fullmatch(path):
            return True
        translation = _TRANSLATION.fullmatch(path) if self.translations else None
        return translation is not None and not self._kept(translation[1])

    def _kept(self, locale: bytes) -> bool:
        return locale in self.locales or re.split(rb"[_.@]", locale)[0] in self.locales


def clean(root: Path, spec: Spec) -> None:
    """Remove from `root`, a build's upper directory, what differs the next time."""
    rules = _Rules(
        spec.slim, spec.slim or bool(spec.locales), tuple(map(os.fsencode, spec.locales))
    )
    top = os.open(root, tree.DIRECTORY)
    try:
        for directory, path in _bottom_up(top):
            _clean_directory(directory, path, rules)
    finally:
        os.close(top)


def newest(root: Path, before_seconds: float) -> int:
    """The latest time of any file that is older than `before_seconds`: of what packages brought."""
    latest = 0
    top = os.open(root, tree.DIRECTORY)
    try:
        for fd, _ in _bottom_up(top):
            with os.scandir(fd) as entries:
                for entry in entries:
                    seconds = int(entry.stat(follow_symlinks=False).st_mtime)
                    if latest < seconds < before_seconds and not entry.is_dir(
                        follow_symlinks=False
                    ):
                        latest = seconds
    finally:
        os.close(top)
    return latest


def settle_shadow(root: Path, epoch_seconds: int) -> None:
    """The days on which passwords were changed become the epoch's (shadow(5), third field)."""
    top = os.open(root, tree.DIRECTORY)
    try:
        etc = tree.open_directory(top, b"etc")
    except OSError:
        os.close(top)
        return
    try:
        fd = os.open("shadow", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=etc)
    except OSError:
        return
    finally:
        os.close(etc)
        os.close(top)
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_size <= _MAXIMUM_SHADOW_BYTES:
            text = os.read(fd, _MAXIMUM_SHADOW_BYTES)
            settled = b"".join(_settled(line, epoch_seconds) for line in text.splitlines(True))
            if settled != text:
                os.ftruncate(fd, 0)
                os.lseek(fd, 0, os.SEEK_SET)
                write_all(fd, settled)
    finally:
        os.close(fd)


def _settled(line: bytes, epoch_seconds: int) -> bytes:
    fields = line.split(b":")
    if len(fields) > 2 and fields[2].isdigit():
        fields[2] = b"%d" % min(int(fields[2]), epoch_seconds // _DAY_SECONDS)
    return b":".join(fields)


def _clean_directory(fd: int, path: bytes, rules: _Rules) -> None:
    prefix = path + b"/" if path else b""
    for name in map(os.fsencode, os.listdir(fd)):
        status = os.lstat(name, dir_fd=fd)
        whole = prefix + name
        if stat.S_ISDIR(status.st_mode):
            if _PRUNED.fullmatch(whole) and _is_dropped(whole, rules):
                _remove_empty(name, fd)
        elif rules.remove(whole):
            os.unlink(name, dir_fd=fd)
        elif stat.S_ISREG(status.st_mode) and status.st_size and _TRUNCATED.fullmatch(whole):
            cut = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.ftruncate(cut, 0)
            os.close(cut)


def _is_dropped(path: bytes, rules: _Rules) -> bool:
    """Whether a directory that is empty now was emptied here."""
    return rules.remove(path + b"/x")


def _remove_empty(name: bytes, fd: int) -> None:
    with suppress(OSError):  # something is left in it
        os.rmdir(name, dir_fd=fd)


def _bottom_up(top: int) -> Iterator[tuple[int, bytes]]:
    """Every directory below, deepest first, with a descriptor that is good until the next one."""
    paths, waiting = [b""], [b""]
    while waiting:
        path = waiting.pop()
        fd = tree.open_directory(top, path)
        try:
            with os.scandir(fd) as entries:
                found = [os.fsencode(e.name) for e in entries if e.is_dir(follow_symlinks=False)]
        finally:
            os.close(fd)
        below = [path + b"/" + name if path else name for name in found]
        paths += below
        waiting += below
    for path in sorted(paths, key=lambda item: item.count(b"/") if item else -1, reverse=True):
        fd = tree.open_directory(top, path)
        try:
            yield fd, path
        finally:
            os.close(fd)
