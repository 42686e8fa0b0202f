"""Disks made into images: received, read in a vm of their own, sorted, counted, explained."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from proa import plan
from proa.engine import disk_reader
from proa.engine.core import Core
from proa.engine.disk_layer import Passing
from proa.engine.tree import Entry, Reader
from proa.errors import Corrupt, HostError, Invalid, NoSpace, NotFound, ProaError
from proa.image.catalog import Image
from proa.image.layer import tree
from proa.image.machine import formats, guess
from proa.image.machine.ledger import Ledger
from proa.isolation.vm.inspector import SCRATCH_DEVICE, Disk, Inspector

SIZE_MAXIMUM_BYTES = 16 << 40
_HEAD_MAXIMUM = 32 << 20
_PARTS_MAXIMUM = 1_000_000
_PIECE = 1 << 20
_TOLD_BYTES = 256 << 20
_RPM_MAXIMUM = 128 << 20
_RPM_QUERY = r"[%{=NAME}\t%{FILENAMES}\n]"


@dataclass(frozen=True)
class Origin:
    """What a client says of its disk: its file's name, the image's, the root's number."""

    file: str
    name: str = ""
    root: int | None = None


@dataclass(frozen=True)
class Imported:
    """The image, and what is known about how it came about."""

    image: Image
    ledger: dict[str, Any]
    containerfile: str
    problems: tuple[str, ...]


def from_disk(core: Core, upload: BinaryIO, origin: Origin) -> Iterator[str | Imported]:
    """Make an image of the disk in `upload`; the first line comes once all of it is here."""
    with core.images.workspace() as work:
        path = work / "disk"
        with tree.reporting("receive a disk"):
            size = receive(upload, path)
            with path.open("rb") as file:
                kind = formats.detect(file.read(formats.HEAD_BYTES))
        yield f"a {kind} disk, {size >> 20} MiB"
        yield "starting a vm that reads it"
        disk = Disk(path, kind, work / "scratch")
        with core.vms.inspector(disk, work) as vm:
            found = disk_reader.volumes(vm)
            for item in found:
                named = f" '{item.label}'" if item.label else ""
                yield f"partition {item.number}: {item.kind or 'unknown'}{named}"
            machine = disk_reader.find(vm, found, origin.root)
            yield machine.says
            yield from _copy(vm, machine.target)
            with disk.scratch.open("rb", buffering=1 << 20) as records:
                yield from _read(core, vm, machine, (origin, records))


def receive(upload: BinaryIO, path: Path) -> int:
    """Write a disk that comes as `client.disks` sends it; the file's size.  Raises Invalid."""
    size, parts = _head(upload.readline(_HEAD_MAXIMUM))
    with path.open("xb") as file:
        file.truncate(size)
        for start, length in parts:
            file.seek(start)
            while length:
                data = upload.read(min(length, _PIECE))
                if not data:
                    raise Invalid("the disk ended early")
                file.write(data)
                length -= len(data)
    return size


def _head(line: bytes) -> tuple[int, list[tuple[int, int]]]:
    try:
        head = json.loads(line)
        size, parts = int(head["size"]), [(int(at), int(length)) for at, length in head["parts"]]
    except (ValueError, KeyError, TypeError):
        raise Invalid("the disk does not begin with the list of its parts") from None
    if not 512 <= size <= SIZE_MAXIMUM_BYTES or len(parts) > _PARTS_MAXIMUM:
        raise Invalid(f"a disk of '{size}' bytes in '{len(parts)}' parts is not read")
    end = 0
    for start, length in parts:
        if start < end or length < 0 or start + length > size:
            raise Invalid("the parts of the disk overlap")
        end = start + length
    return size, parts


def _copy(vm: Inspector, target: str) -> Iterator[str]:
    """Let the guest write the records of all files to its scratch disk."""
    told = 0
    tree_out = plan.Builtin(("tree-out", target, "xattrs", SCRATCH_DEVICE))
    with vm.stream(tree_out) as connection, connection.makefile("rb") as stream:
        reader = Reader(cast(BinaryIO, stream))
        while (progress := _progress(reader)) is not None:
            if progress.size - told >= _TOLD_BYTES:
                told = progress.size
                yield f"read {told >> 20} MiB"


def _progress(reader: Reader) -> Entry | None:
    try:
        return reader.entry()
    except (HostError, NotFound) as error:
        raise Corrupt(
            f"the disk cannot be read, it may be damaged: {error.message}",
            hint="check its file systems, on a copy of it",
        ) from error


def _read(
    core: Core, vm: Inspector, machine: disk_reader.Machine, source: tuple[Origin, BinaryIO]
) -> Iterator[str | Imported]:
    origin, records = source
    yield "making a layer of it"
    with tempfile.TemporaryFile("w+", errors="surrogateescape", newline="") as rest:
        passing = Passing(Ledger(rest))
        with core.images.assembly() as assembly:
            layer = assembly.layer_from_tar(_Pieces(passing.layer(Reader(records))))
            yield "asking the package database"
            passing.ledger.settle(_owners(vm, machine, passing))
            about = passing.os_release().get("PRETTY_NAME", "an unknown system")[:200]
            found = guess.guess(passing.units(), passing.enabled, min(passing.shells, default=""))
            document = _document(passing, found, origin, about)
            image = assembly.image(document, [layer], [origin.name] if origin.name else [])
    text = guess.containerfile(
        found, f"the disk '{origin.file}' ({about})", sorted(passing.ledger.left)
    )
    problems = (*machine.problems, *passing.problems[:100])
    yield Imported(image, passing.ledger.document(machine.used_bytes), text, problems)


class _Pieces:
    """`Source` over pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._rest = memoryview(piece)
        part, self._rest = self._rest[:size], self._rest[size:]
        return bytes(part)


def _owners(vm: Inspector, machine: disk_reader.Machine, passing: Passing) -> dict[str, str]:
    """Packages by path: dpkg's from its lists, rpm's by the machine's own rpm, in the guest."""
    owners = passing.dpkg_owners()
    if owners or not passing.has_rpm:
        return owners
    environment = plan.Environment("PATH=/usr/bin:/bin:/usr/sbin:/sbin")
    query = plan.Exec(("rpm", "-qa", "--queryformat", _RPM_QUERY))
    try:
        root = plan.Root(vm.root_to_write(machine.target))  # its database wants to be locked
        with vm.stream(root, environment, query) as connection:
            data = bytearray()
            while chunk := connection.recv(1 << 18):
                data += chunk
                if len(data) > _RPM_MAXIMUM:
                    raise NoSpace("the package database is too large")
    except (ProaError, OSError) as error:
        passing.problems.append(f"the machine's rpm does not answer: {error}")
        return {}
    if not data:
        passing.problems.append("the machine's rpm knows no package")
    lines = data.decode("utf-8", "surrogateescape").splitlines()
    pairs = (line.partition("\t") for line in lines)
    return {path.lstrip("/"): package for package, tab, path in pairs if tab}


def _document(passing: Passing, found: guess.Guess, origin: Origin, about: str) -> dict[str, Any]:
    newest = min(passing.newest_ns // 10**9, int(time.time()))
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(0, newest)))
    labels = {
        "org.opencontainers.image.title": about,
        "io.proa.origin": "disk",
        "io.proa.origin.disk": origin.file[:200],
    }
    config: dict[str, Any] = {
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Labels": labels,
    }
    if found.command:
        config["Cmd"] = list(found.command)
    if found.ports:
        config["ExposedPorts"] = {
            port if "/" in port else f"{port}/tcp": {} for port in found.ports
        }
    return {
        "architecture": "amd64", "os": "linux", "created": created, "config": config,
        "history": [{"created": created, "created_by": "proa image from-disk"}],
    }  # fmt: skip
