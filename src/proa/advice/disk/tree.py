"""The names on a disk, links followed among them, and the texts of the few files that are read.

Everything is a stranger's: paths are only ever names here, and what is kept is bounded.  Pure.
"""

from __future__ import annotations

import posixpath
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

NAMES_MAXIMUM = 4_000_000  # that are looked at
KEPT_MAXIMUM = 100_000
SETUID_MAXIMUM = 100
PATH_MAXIMUM = 512
COUNTED_MAXIMUM = 50_000
LINE_MAXIMUM = 4096
_LINKS_MAXIMUM = 16
_DEPTH = 5  # directories that are counted: /var/lib/postgresql/15/main
_COUNTED = re.compile(r"/(?:var/(?!log|cache|tmp|lib/(?:dpkg|apt|rpm))|srv|opt|home|data)")
# What may matter: configuration, units, programs, and what applications are usually made of.
_KEPT = re.compile(
    r"/(?:etc|boot|efi|srv|opt|root|home|data)(?:/.*)?|/usr/local/.*|/(?:usr/)?s?bin/[^/]+|"
    r"/(?:usr/)?lib/(?:systemd|modules-load\.d|sysctl\.d|modules/[^/]+/?[^/]*|os-release|ld-[^/]*)"
    r"(?:/.*)?|/(?:lib\d*|bin|sbin|usr|var)|/usr/(?:lib\d*|sbin|bin)|/(?:usr/)?lib\d+/ld-[^/]*|"
    r"/var/(?:lib|www|spool)(?:/[^/]+){0,3}|/var/lib/pgsql/\d+/data/[^/]+|/usr/lib/os-release|"
    r"/usr/share(?:/(?:xsessions|wayland-sessions)(?:/[^/]+)?)?|/init"
)  # fmt: skip
_NOT_KEPT = re.compile(
    r".*/(?:node_modules|site-packages|dist-packages|vendor/bundle|\.git|__pycache__|\.cache)/.*|"
    r"/etc/(?:ssl/certs|alternatives|ca-certificates)/.*|/usr/local/share/.*"
)


@dataclass(frozen=True)
class Entry:
    """One name; `link` is a symbolic link's target."""

    mode: int
    size: int
    link: str = ""

    @property
    def directory(self) -> bool:
        """Whether it is one."""
        return stat.S_ISDIR(self.mode)

    @property
    def regular(self) -> bool:
        """Whether it is a plain file."""
        return stat.S_ISREG(self.mode)


@dataclass
class Tree:
    """Names by absolute path; `texts` are filled in by whoever can read the disk."""

    entries: dict[str, Entry] = field(default_factory=dict)
    sizes: Counter[str] = field(default_factory=Counter)
    setuid: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    packages: int = 0
    cut: bool = False
    _by_directory: dict[str, list[str]] = field(default_factory=dict)
    _found: dict[re.Pattern[str], tuple[str, ...]] = field(default_factory=dict)

    def add(self, path: str, entry: Entry) -> None:
        """Take note of a name, if it may matter."""
        if len(path) > PATH_MAXIMUM:
            self.cut = True
            return
        if entry.regular and _COUNTED.match(path):
            self._count(path, entry.size)
        if entry.regular and entry.mode & stat.S_ISUID and len(self.setuid) < SETUID_MAXIMUM:
            self.setuid.append(path)
        if path.startswith("/var/lib/dpkg/info/"):
            self.packages += path.endswith(".list")
            return
        if not _KEPT.fullmatch(path) or _NOT_KEPT.fullmatch(path):
            return
        if len(self.entries) >= KEPT_MAXIMUM:
            self.cut = True
            return
        self.entries[path] = entry
        self._by_directory.setdefault(posixpath.dirname(path), []).append(path)

    def _count(self, path: str, size: int) -> None:
        """Add a file's bytes to the directories it is in."""
        parts = path.split("/")
        for depth in range(2, min(len(parts), _DEPTH + 2)):
            directory = "/".join(parts[:depth])
            if directory in self.sizes or len(self.sizes) < COUNTED_MAXIMUM:
                self.sizes[directory] += size
            else:
                self.cut = True

    def resolve(self, path: str) -> str:
        """Where a path leads, links followed below the root; empty where to nothing known."""
        done, rest, links = "/", path.strip("/").split("/"), 0
        while rest:
            part = rest.pop(0)
            if part in ("", "."):
                continue
            if part == "..":
                done = posixpath.dirname(done)
                continue
            step = posixpath.join(done, part)
            entry = self.entries.get(step)
            if entry is None:
                return ""
            if entry.link:
                links += 1
                if links > _LINKS_MAXIMUM:
                    return ""
                done = "/" if entry.link.startswith("/") else done
                rest = [*entry.link.split("/"), *rest]
                continue
            done = step
        return done

    def target(self, path: str) -> str:
        """What a link says, made absolute; empty for no link."""
        entry = self.entries.get(path)
        if entry is None or not entry.link:
            return ""
        return posixpath.normpath(posixpath.join(posixpath.dirname(path), entry.link))

    def file(self, *paths: str) -> str:
        """The first of them that leads to a plain file; empty for none."""
        for path in paths:
            found = self.resolve(path)
            if found and self.entries[found].regular:
                return found
        return ""

    def has(self, path: str) -> bool:
        """Whether the path leads anywhere."""
        return bool(self.resolve(path))

    def under(self, directory: str, pattern: str = ".*") -> Iterator[str]:
        """Names right below a directory that match, sorted."""
        found = self.resolve(directory)
        wanted = re.compile(pattern)
        for path in sorted(self._by_directory.get(found, ()) if found else ()):
            if wanted.fullmatch(posixpath.basename(path)):
                yield path

    def matching(self, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """Plain files (or links to some) whose whole path matches, sorted; names are all there."""
        if pattern not in self._found:
            found = sorted(filter(pattern.fullmatch, self.entries))
            self._found[pattern] = tuple(path for path in found if self.file(path))
        return self._found[pattern]

    def text(self, path: str) -> str:
        """What is in a file, when it was read."""
        return self.texts.get(self.file(path) or path, "")

    def lines(self, path: str) -> Iterator[tuple[int, str]]:
        """Numbered lines, of which no more than can be meant is looked at."""
        lines = enumerate(self.text(path).splitlines(), 1)
        return ((number, line[:LINE_MAXIMUM]) for number, line in lines)


def of_texts(files: Mapping[str, str | Entry], more: Iterable[str] = ()) -> Tree:
    """A tree of these files, texts and links; `more` are directories.  For tests and callers that
    have files rather than a disk."""
    tree = Tree()
    for path in _directories([*files, *(f"{name}/x" for name in more)]):
        tree.add(path, Entry(stat.S_IFDIR | 0o755, 0))
    for path, item in files.items():
        if isinstance(item, str):
            tree.add(path, Entry(stat.S_IFREG | 0o644, len(item)))
            tree.texts[path] = item
        else:
            tree.add(path, item)
    return tree


def _directories(paths: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for path in paths:
        while (path := posixpath.dirname(path)) not in ("/", ""):
            found.setdefault(path)
    return sorted(found)
