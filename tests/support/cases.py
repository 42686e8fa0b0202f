"""Labelled subjects for advice: what each is made of, which form is right for it, and why.

A case is an image, an app file's service or a disk. Its label follows from the principles of
docs/concepts/advice.md alone (`principle` is one of them in its words); the rules never see it.
Visible cases are written down by hand in `tests/support/labelled/`; held-out ones are drawn by
seed (`tests/support/drawn/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proa.advice.facts import Value

CONTAINER, VM = "container", "vm"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class File:
    """A regular file with a mode; plain text and bytes have 0644."""

    data: bytes | str
    mode: int = 0o755


Tree = Mapping[str, "bytes | str | File | Link"]  # by path, without a slash in front


@dataclass(frozen=True)
class Case:
    """One subject and its label.

    `packages` are Debian packages whose files (and database) lie below `tree`, for an image or a
    disk; `config` is an image's (`Cmd`, `ExposedPorts` ...), `platform` its `os/architecture`.
    `compose` is an app file's text, `service` the one that is judged.  `stated` are facts its owner
    states, by key (`stated.trust` ...).
    """

    name: str
    kind: str
    label: str
    principle: str
    why: str
    tree: Tree = field(default_factory=dict)
    packages: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    platform: str = "linux/amd64"
    compose: str = ""
    service: str = ""
    stated: Mapping[str, Value] = field(default_factory=dict)
