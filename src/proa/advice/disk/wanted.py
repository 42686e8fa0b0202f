"""Which few of a disk's files are read: settings and units, small ones, and not too many.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from proa.advice.disk import units
from proa.advice.disk.tree import Tree

FILES_MAXIMUM = 1500
BYTES_MAXIMUM = 8 << 20
FILE_MAXIMUM = 1 << 18
_CONFIGURATION = re.compile(
    r"/etc/(?:[^/]+/){0,4}[^/]+\.(?:conf|cnf|cfg|ini|env|ya?ml|toml|properties|xml|cf|list)|"
    r"/etc/(?:default|sysconfig|cron\.d|init\.d|conf\.d|nginx/sites-enabled|apache2/sites-enabled|"
    r"network)/[^/]+|/etc/(?:os-release|passwd|group|hostname|hosts|fstab|modules|crontab|inittab|"
    r"environment|exports|rc\.local|debian_version|my\.cnf|redis\.conf)|"
    r"/etc/(?:ssh/sshd_config.*|bind/[^/]+|postgresql/[^/]+/[^/]+/[^/]+|service/[^/]+/run)|"
    r"/(?:usr/)?lib/(?:modules-load\.d|sysctl\.d)/[^/]+|/usr/lib/os-release|"
    r"/var/spool/cron/(?:crontabs/)?[^/]+|/var/lib/(?:pgsql/(?:\d+/)?data)/[^/]+\.conf"
)
_NOISE = re.compile(
    r"/etc/(?:fonts|apparmor(?:\.d)?|X11|pam\.d|security|udev|dbus-1|logrotate\.d|apt|polkit-1|"
    r"selinux|ImageMagick.*|xdg|gtk-.*|initramfs-tools|dracut.*|console-setup|kernel|dpkg|bash.*|"
    r"profile\.d|ssl|pki|alternatives|grub\.d|depmod\.d|modprobe\.d|alsa|java.*|perl|python.*|"
    r"sensors.*|sane\.d|cups|vim|emacs|mime.*|ld\.so.*|ca-certificates.*|deluser\.conf|adduser\.conf)"
    r"(?:/.*|$)|/etc/init\.d/(?:README|functions)|/etc/(?:mke2fs|nsswitch|host|resolv|gai|debconf|"
    r"e2scrub|libaudit|xattr|ucf|logrotate|locale|man_db|sudo|sudo_logsrvd)\.conf"
)
# What applications are made of, shallow, and their settings.
_APPLICATION = re.compile(
    r"/(?:opt|srv|var/www|data|usr/local/(?:bin|sbin|etc|lib|share)|home/[^/]+|root)/"
    r"(?:[^/]+/){0,3}(?:\.env(?:\.[\w-]+)?|[^/]+\.(?:env|conf|cnf|cfg|ini|ya?ml|toml|properties|py|"
    r"rb|php|js|sh|pl|json|service)|Procfile|[^/.]+)"
)
_SKIPPED = re.compile(
    r".*/(?:package-lock|yarn|composer|tsconfig|package)\.(?:json|lock)|.*\.min\.js|"
    r".*/(?:test|tests|docs?|static|assets|locale|migrations)/.*|/(?:root|home/[^/]+)/\.(?:ssh|"
    r"gnupg|bash.*|profile|cache|local)(?:/.*)?"
)


def wanted(tree: Tree) -> list[str]:
    """Paths to read, the most telling first."""
    found: dict[str, int] = {}
    total = 0
    for path in _candidates(tree):
        real = tree.file(path)
        if not real or real in found:
            continue
        size = tree.entries[real].size
        if not 0 < size <= FILE_MAXIMUM or total + size > BYTES_MAXIMUM:
            continue
        total += size
        found[real] = size
        if len(found) >= FILES_MAXIMUM:
            tree.cut = True
            break
    return list(found)


def _candidates(tree: Tree) -> Iterator[str]:
    for item in units.started(tree):
        yield item.path
        if item.kind in ("timer", "socket"):
            yield units.path_of(tree, f"{item.name}.service")
        name = posixpath.basename(item.path)
        for place in ("/etc/systemd/system", "/lib/systemd/system", "/usr/lib/systemd/system"):
            for unit in (f"{item.name}.{item.kind}", name):
                yield from tree.under(f"{place}/{unit}.d", r".*\.conf")
    names = sorted(tree.entries)
    yield from (path for path in names if _takes(_CONFIGURATION, _NOISE, path))
    own = [path for path in names if _takes(_APPLICATION, _SKIPPED, path)]
    yield from sorted(own, key=lambda path: (path.count("/"), path))


def _takes(pattern: re.Pattern[str], noise: re.Pattern[str], path: str) -> bool:
    return bool(pattern.fullmatch(path)) and not noise.fullmatch(path)
