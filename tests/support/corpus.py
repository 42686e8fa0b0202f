"""The corpus of Containerfiles: cases in text files, and what an image holds, for comparing.

A file is a list of cases:

    === name [option ...]        options of the build: --target x, --build-arg A=b ...
    ... the Containerfile
    --- path [mode]              a file of the context, its content below
    --- path -> target           a symbolic link
    --- path/ [mode]             a directory
    --- !error text              the build must fail, and the message hold this text
    --- !stricter reason         fails here only: BuildKit lets it pass
"""

from __future__ import annotations

import io
import json
import posixpath
import shlex
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parents[1] / "interop" / "corpus"


@dataclass
class Case:
    """One Containerfile with its context; `error` is what a failing one must say."""

    name: str
    options: list[str]
    containerfile: str = ""
    files: list[tuple[str, str]] = field(default_factory=list)
    error: str | None = None
    stricter: bool = False

    def write(self, directory: Path) -> None:
        """Lay the context out below `directory`."""
        directory.mkdir(parents=True)
        (directory / "Containerfile").write_text(self.containerfile)
        for head, content in self.files:
            path, arrow, target = head.partition(" -> ")
            name, _, mode = path.rpartition(" ")
            if not mode.isdecimal() or not name:
                name, mode = path, ""
            there = directory / name
            there.parent.mkdir(parents=True, exist_ok=True)
            if arrow:
                there.symlink_to(target)
                continue
            if name.endswith("/"):
                there.mkdir(exist_ok=True)
            else:
                there.write_text(content)
            there.chmod(int(mode or ("755" if name.endswith("/") else "644"), 8))


def cases(path: Path) -> Iterator[Case]:
    """The cases of one file, in order."""
    case: Case | None = None
    content: list[str] = []
    head = ""

    def finish() -> None:
        if case is None:
            return
        text = "".join(content)
        if not head:
            case.containerfile = text
        elif head.startswith("!stricter"):
            case.stricter = True
        elif head.startswith("!error"):
            case.error = head.removeprefix("!error").strip()
        else:
            case.files.append((head, text))

    for line in path.read_text().splitlines(keepends=True):
        if line.startswith(("=== ", "--- ")):
            finish()
            content = []
        if line.startswith("=== "):
            if case is not None:
                yield case
            name, *options = shlex.split(line[4:])
            case, head = Case(f"{path.stem}-{name}", options), ""
        elif line.startswith("--- "):
            head = line[4:].strip()
        else:
            content.append(line)
    finish()
    if case is not None:
        yield case


def corpus() -> list[Case]:
    """Every case there is."""
    return [case for path in sorted(CORPUS.glob("*.txt")) for case in cases(path)]


# -- what an image holds --------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """The merged files of an image by path, and the parts of its configuration that matter."""

    files: dict[str, tuple[Any, ...]]
    config: dict[str, Any]
    history: list[tuple[str, bool]]
    layers: int


def held(archive: bytes) -> Held:
    """What the one image of a `save` archive holds."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as outer:
        manifest = json.loads(_member(outer, "manifest.json"))[0]
        document = json.loads(_member(outer, manifest["Config"]))
        files: dict[str, tuple[Any, ...]] = {}
        for name in manifest["Layers"]:
            _apply(files, _member(outer, name))
    steps, config = document.get("history") or [], document.get("config") or {}
    return Held(
        files,
        {key: value for key, value in config.items() if value and key != "ArgsEscaped"},
        [(step.get("created_by", ""), bool(step.get("empty_layer"))) for step in steps],
        len(manifest["Layers"]),
    )


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None, name
    return file.read()


def _apply(files: dict[str, tuple[Any, ...]], layer: bytes) -> None:
    """Lay one layer over the files so far, whiteouts applied (OCI image-spec `layer.md`)."""
    brought: set[str] = set()
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for member in archive:
            path = posixpath.normpath("/" + member.name)
            if path == "/":
                continue
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                _remove(files, folder, brought, itself=False)
            elif name.startswith(".wh."):
                _remove(files, f"{folder}/{name[4:]}", brought, itself=True)
            else:
                if not member.isdir():
                    _remove(files, path, set(), itself=True)
                files[path] = _facts(archive, member, files)
                brought.add(path)


def _remove(
    files: dict[str, tuple[Any, ...]], path: str, brought: set[str], *, itself: bool
) -> None:
    for known in [p for p in files if p.startswith(f"{path}/") or (itself and p == path)]:
        if known not in brought:
            del files[known]


def _facts(
    archive: tarfile.TarFile, member: tarfile.TarInfo, files: dict[str, tuple[Any, ...]]
) -> tuple[Any, ...]:
    if member.islnk():
        return files["/" + member.linkname.strip("/")]
    attributes = tuple(
        sorted(item for item in member.pax_headers.items() if item[0].startswith("SCHILY.xattr."))
    )
    content: Any = None
    if member.isreg():
        file = archive.extractfile(member)
        assert file is not None
        content = file.read()
    elif member.issym():
        content = member.linkname
    elif member.isdev():
        content = (member.devmajor, member.devminor)
    mode = "" if member.issym() else oct(stat.S_IMODE(member.mode))
    return (member.type, mode, member.uid, member.gid, content, attributes)
