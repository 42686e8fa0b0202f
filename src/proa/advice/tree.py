"""Somebody's file system as readers of facts see it: by names below a root, with limits.  Pure.

The engine has one of an image's layers merged, another of a machine's disk.  No call raises for
what is not there; paths have no slash in front; nothing leads out of the root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

FILE, DIRECTORY, LINK, OTHER = "file", "directory", "link", "other"
NAMES_MAXIMUM = 5_000  # of one directory that are looked at
TEXT_MAXIMUM = 64 << 10


@dataclass(frozen=True, order=True)
class Entry:
    """What a name is; `mode` are its permissions."""

    kind: str
    mode: int
    size: int


class Tree(Protocol):
    """A root."""

    def names(self, path: str) -> Sequence[str]:
        """The names in a directory, at most NAMES_MAXIMUM, sorted; none when it is none."""

    def entries(self, path: str) -> Iterator[tuple[str, Entry]]:
        """The same names with what they are, links as such, in any order."""

    def look(self, path: str, *, follow: bool = True) -> Entry | None:
        """What is there, links followed below the root if so asked."""

    def read(self, path: str, limit: int = TEXT_MAXIMUM) -> bytes:
        """The first bytes of a regular file, links followed; none of anything else."""

    def target(self, path: str) -> str:
        """Where a link points; empty for what is none."""


def text(tree: Tree, path: str, limit: int = TEXT_MAXIMUM) -> str:
    """A file's beginning as text."""
    return tree.read(path, limit).decode("utf-8", "replace")


def first(tree: Tree, paths: Iterator[str] | Sequence[str]) -> str:
    """The first of these paths that is there; empty when none is."""
    return next((path for path in paths if tree.look(path) is not None), "")


def below(tree: Tree, directory: str, ending: str = "") -> list[str]:
    """Paths of what is in a directory and ends so."""
    return [f"{directory}/{name}" for name in tree.names(directory) if name.endswith(ending)]
