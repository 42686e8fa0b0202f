"""A labelled case's own files as readers of facts see them, without an engine."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from proa.advice import asked, files
from proa.advice.facts import Fact, Facts
from proa.advice.tree import DIRECTORY, FILE, LINK, NAMES_MAXIMUM, TEXT_MAXIMUM, Entry
from tests.support.cases import Case, File, Link, Tree

HOST = (
    Fact("host.container", True, "test"), Fact("host.vm", True, "test"),
    Fact("host.kernel", "6.1.0", "test"),
)  # fmt: skip


class CaseTree:
    """`advice.tree.Tree` of a mapping; links are followed as far as the mapping goes."""

    def __init__(self, tree: Tree) -> None:
        self._tree = {path.strip("/"): what for path, what in tree.items()}

    def names(self, path: str) -> Sequence[str]:
        """The names in a directory."""
        top = self._real(path)
        start = f"{top}/" if top else ""
        inside = {p[len(start) :].split("/")[0] for p in self._tree if p.startswith(start)}
        return sorted(filter(None, inside))[:NAMES_MAXIMUM]

    def entries(self, path: str) -> Iterator[tuple[str, Entry]]:
        """The names with what they are."""
        for name in self.names(path):
            entry = self.look(f"{self._real(path)}/{name}", follow=False)
            if entry is not None:
                yield name, entry

    def look(self, path: str, *, follow: bool = True) -> Entry | None:
        """What is there."""
        real = self._real(path) if follow else path.strip("/")
        what = self._tree.get(real)
        if what is None:
            return Entry(DIRECTORY, 0o755, 0) if self.names(real) or not real else None
        if isinstance(what, Link):
            return None if follow else Entry(LINK, 0o777, len(what.target))
        mode = what.mode if isinstance(what, File) else 0o644
        return Entry(FILE, mode, len(_content(what)))

    def read(self, path: str, limit: int = TEXT_MAXIMUM) -> bytes:
        """The first bytes of a file."""
        what = self._tree.get(self._real(path))
        return b"" if what is None or isinstance(what, Link) else _content(what)[:limit]

    def target(self, path: str) -> str:
        """Where a link points."""
        what = self._tree.get(path.strip("/"))
        return what.target if isinstance(what, Link) else ""

    def _real(self, path: str) -> str:
        path = path.strip("/")
        for _ in range(40):
            what = self._tree.get(path)
            if not isinstance(what, Link):
                return path
            path = posixpath.normpath(posixpath.join("/", posixpath.dirname(path), what.target))
            path = path.strip("/")
        return path


def _content(what: bytes | str | File | Link) -> bytes:
    data = what.data if isinstance(what, File) else what
    assert isinstance(data, bytes | str)
    return data.encode() if isinstance(data, str) else data


def facts_of(case: Case) -> Facts:
    """The facts of an image's case, as the engine has them of a host with Linux 6.1."""
    config = case.config
    start = files.Start(
        asked.words(config.get("Entrypoint")), asked.words(config.get("Cmd")), source="Cmd"
    )
    found = [Fact(key, value, "stated") for key, value in case.stated.items()]
    found += files.facts(CaseTree(case.tree), "amd64", start)
    system, _, machine = case.platform.partition("/")
    sets: dict[str, Any] = {key: {name: {} for name in config.get(key, ())} for key in _SETS}
    plain = {**config, **sets}
    document = {"os": system, "architecture": machine, "config": plain}
    size = sum(len(_content(w)) for w in case.tree.values() if not isinstance(w, Link))
    found += [*asked.of_image(document, "amd64"), Fact("size.bytes", size, "test"), *HOST]
    return Facts("image", case.name, tuple(found))


_SETS = ("ExposedPorts", "Volumes")
