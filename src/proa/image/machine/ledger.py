"""Where a disk's bytes went: by category, kept or left out, and by package."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from proa.image.machine.sorting import OTHER, PACKAGES, Verdict

LISTED_MAXIMUM = 10_000  # left out paths that are listed by name
ALIASES_MAXIMUM = 100_000
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass
class Ledger:
    """Counts while files pass by; `rest` is a file in which what only packages explain waits."""

    rest: IO[str]
    kept: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    left_paths: list[str] = field(default_factory=list)
    packages: Counter[str] = field(default_factory=Counter)
    names: int = 0
    aliases: dict[str, list[str]] = field(default_factory=dict)
    _aliases: int = 0

    def alias(self, first: str, other: str) -> None:
        """A further name of a file: a package may know it by that one only."""
        if self._aliases < ALIASES_MAXIMUM:
            self._aliases += 1
            self.aliases.setdefault(first, []).append(other)

    def add(self, path: str, size: int, verdict: Verdict) -> None:
        """One name and the bytes of its content."""
        self.names += 1
        if not verdict.kept:
            self.left[verdict.category] += size
            if len(self.left_paths) < LISTED_MAXIMUM:
                self.left_paths.append(path)
        elif verdict.category:
            self.kept[verdict.category] += size
        elif size:
            self.rest.write(f"{size} {path}\0")

    def settle(self, owners: Mapping[str, str]) -> None:
        """Give what waits to its packages; `owners` are packages by path, without a slash."""
        self.rest.seek(0)
        for record in records(self.rest):
            number, _, path = record.partition(" ")
            known = (path, *self.aliases.get(path, ()))
            found = (owners.get(name) or owners.get(unmerged(name)) for name in known)
            owner = next(filter(None, found), "")
            category = PACKAGES if owner else OTHER
            self.kept[category] += int(number)
            if owner:
                self.packages[owner] += int(number)

    @property
    def kept_bytes(self) -> int:
        """Of all files in the image."""
        return sum(self.kept.values())

    @property
    def left_bytes(self) -> int:
        """Of all files left out."""
        return sum(self.left.values())

    def document(self, used_bytes: int) -> dict[str, Any]:
        """For machines; `used_bytes` is what the file systems say is in use, 0 when unknown."""
        found = self.kept_bytes + self.left_bytes
        return {
            "used_bytes": used_bytes, "file_bytes": found, "kept_bytes": self.kept_bytes,
            "left_out_bytes": self.left_bytes, "names": self.names,
            "other_bytes": used_bytes - found if used_bytes else 0,
            "kept": dict(self.kept.most_common()), "left_out": dict(self.left.most_common()),
            "packages": dict(self.packages.most_common()), "left_out_paths": self.left_paths,
        }  # fmt: skip


def records(file: IO[str]) -> Iterator[str]:
    """What of a file stands before each zero."""
    rest = ""
    while text := file.read(1 << 20):
        *whole, rest = (rest + text).split("\0")
        yield from whole


def unmerged(path: str) -> str:
    """The path a package may have for a file of a merged /usr: `usr/bin/x` is its `bin/x`."""
    first, _, rest = path.partition("/")
    second = rest.partition("/")[0]
    if first == "usr" and second in _MERGED:
        return rest
    return f"usr/{path}" if first in _MERGED else path
