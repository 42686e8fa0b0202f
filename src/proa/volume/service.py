"""Named volumes: directories that outlive instances.

`root/<name>/data` is the volume; beside it lies `volume.json` with what was said at its making.
File owners are ids as an image has them (0 is root), whatever an instance's own range is.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from proa.errors import Conflict, HostError, Invalid, NotFound
from proa.host import files

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
_FACTS = "volume.json"


@dataclass(frozen=True)
class Volume:
    """One volume; `path` is its content on the host."""

    name: str
    path: Path
    created_ns: int
    labels: dict[str, str] = field(default_factory=dict)


class Volumes:
    """The volumes of an engine, by name; the directory tree is the only state."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.empty_trash(root)

    def create(self, name: str, labels: Mapping[str, str] | None = None) -> Volume:
        """Make a volume; one of that name is returned as it is (as Docker does)."""
        home = self._home(name)
        with suppress(NotFound):
            return self.get(name)
        facts = json.dumps({"created_ns": time.time_ns(), "labels": dict(labels or {})})
        try:
            home.mkdir(mode=0o711, exist_ok=True)
            (home / "data").mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            raise HostError(f"cannot make volume '{name}': {error.strerror}") from error
        files.atomic_write(home / _FACTS, facts.encode())
        return self.get(name)

    def get(self, name: str) -> Volume:
        """The volume of that name, or NotFound."""
        home = self._home(name)
        try:
            facts = json.loads((home / _FACTS).read_bytes())
            created_ns, labels = int(facts["created_ns"]), dict(facts["labels"])
        except FileNotFoundError:
            raise NotFound(f"no such volume: '{name}'") from None
        except (OSError, ValueError, KeyError, TypeError):  # the content still counts
            created_ns, labels = home.stat().st_mtime_ns, {}
        return Volume(name, home / "data", created_ns, labels)

    def list(self) -> list[Volume]:
        """Every volume, by name."""
        names = (entry.name for entry in self._root.iterdir() if _NAME.fullmatch(entry.name))
        found = []
        for name in sorted(names):
            with suppress(NotFound):  # half made, or removed meanwhile
                found.append(self.get(name))
        return found

    def path(self, name: str) -> Path:
        """Where the content of a volume is; the volume is made when missing."""
        return self.create(name).path

    def remove(self, name: str, *, force: bool = False, used_by: str = "") -> None:
        """Delete a volume and its content; `force` does not mind a missing one.

        `used_by` names an instance that still has it, which is a Conflict.
        """
        home = self._home(name)
        if used_by:
            raise Conflict(f"volume '{name}' is in use by '{used_by}'")
        if not home.is_dir() and not force:
            raise NotFound(f"no such volume: '{name}'")
        files.remove_tree(home)

    def _home(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise Invalid(
                f"'{name}' is no volume name",
                hint="letters, digits, '_', '.' and '-', starting with a letter or digit",
            )
        return self._root / name
