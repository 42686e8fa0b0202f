"""The writable disks of an instance: chains of copy-on-write files over what is shared.

A chain's top is written, everything below is read-only and may be shared: files of the same owner
by hard link, so that sharing takes no time and the last name to go frees the bytes, somebody's base
by its path, with size and time checked.  Only the record, `disks/chains.json`, says what lies over
what; names of other files in headers are never followed.  Without a record there is one chain: the
raw file `disk`, if any.  A snapshot's directory has the same shape as an instance's.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, HostError
from proa.host import files
from proa.isolation.vm import qcow2

FIRST = "disk"  # the raw file of an image's vm, and the name of the first disk
DIRECTORY = "disks"
RECORD = "chains.json"
LAYERS_MAXIMUM = 64


@dataclass(frozen=True)
class Layer:
    """One file.  A base is somebody's: `size_bytes` and `mtime_ns` are what it was, 0 for ours."""

    path: Path
    format: str
    size_bytes: int = 0
    mtime_ns: int = 0

    @property
    def base(self) -> bool:
        """Whether it is somebody else's file, which we only read."""
        return self.size_bytes != 0

    @property
    def number(self) -> int:
        """Its number among the files of the directory; a base and the first file are 0."""
        return 0 if self.base or self.path.name == FIRST else int(self.path.name)


@dataclass(frozen=True)
class Chain:
    """Top first; every layer but the last is a qcow2 of ours."""

    layers: tuple[Layer, ...]

    @property
    def top(self) -> Layer:
        """What is written."""
        return self.layers[0]


Chains = dict[str, Chain]


@dataclass(frozen=True)
class Opened:
    """A chain's files as descriptors with their formats, top first, numbers as in their layers."""

    descriptors: tuple[int, ...]
    formats: tuple[str, ...] = ("raw",)
    numbers: tuple[int, ...] = (0,)

    @classmethod
    def none(cls) -> Opened:
        """No file at all."""
        return cls((), (), ())

    def under(self, descriptor: int) -> Opened:
        """The same with an overlay of ours, open here, on top."""
        return Opened(
            (descriptor, *self.descriptors), ("qcow2", *self.formats),
            (1 + max(self.numbers), *self.numbers),
        )  # fmt: skip

    @classmethod
    def single(cls, descriptor: int) -> Opened:
        """A raw disk of one file."""
        return cls((descriptor,))

    def close(self) -> None:
        """Close all of them."""
        for descriptor in self.descriptors:
            os.close(descriptor)


# -- the record -----------------------------------------------------------------------------------


def load(directory: Path) -> Chains:
    """The chains by disk's name.  Raises Corrupt for a damaged record."""
    try:
        data = json.loads((directory / DIRECTORY / RECORD).read_bytes())
        return {
            name: Chain(tuple(_layer(directory, item) for item in items))
            for name, items in data["disks"].items()
        }
    except FileNotFoundError:
        first = directory / FIRST
        return {FIRST: Chain((Layer(first, "raw"),))} if first.exists() else {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"the record of the disks in '{directory}' is damaged: {error}") from error


def _layer(directory: Path, item: Mapping[str, Any]) -> Layer:
    if "base" in item:
        return Layer(
            Path(item["base"]), item["format"], int(item["size_bytes"]), int(item["mtime_ns"])
        )
    name = item["file"]
    if name == FIRST:
        return Layer(directory / FIRST, item["format"])
    return Layer(directory / DIRECTORY / str(int(name)), item["format"])


def save(directory: Path, chains: Chains) -> None:
    """Replace the record, durably: what a guest has been told is on its disk depends on it."""
    disks = {name: [_item(layer) for layer in chain.layers] for name, chain in chains.items()}
    (directory / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    data = json.dumps({"disks": disks}, indent=1).encode()
    files.atomic_write(directory / DIRECTORY / RECORD, data, durable=True)


def _item(layer: Layer) -> dict[str, Any]:
    if layer.base:
        return {"base": str(layer.path), "format": layer.format,
                "size_bytes": layer.size_bytes, "mtime_ns": layer.mtime_ns}  # fmt: skip
    return {"file": layer.path.name, "format": layer.format}


def forget(directory: Path) -> None:
    """Remove every disk; what is started next begins anew."""
    save(directory, {})
    sweep(directory)


def sweep(directory: Path) -> None:
    """Remove files of ours that no chain of the record has (any more); finishes a `forget`."""
    if not (directory / DIRECTORY / RECORD).exists():
        return
    used = {layer.path for chain in load(directory).values() for layer in chain.layers}
    kept = {directory / DIRECTORY / RECORD, *used}
    for path in (directory / FIRST, *(directory / DIRECTORY).iterdir()):
        if path not in kept:
            path.unlink(missing_ok=True)
    if not used:
        (directory / DIRECTORY / RECORD).unlink(missing_ok=True)


# -- making, sharing -------------------------------------------------------------------------------


def base(path: Path, format: str) -> Layer:
    """Somebody's disk as the bottom of chains; it must not change from now on."""
    facts = path.stat()
    return Layer(path, format, facts.st_size, facts.st_mtime_ns)


def over(directory: Path, name: str, below: Layer, size_bytes: int) -> Chain:
    """A new disk of an instance: an empty overlay of this virtual size over `below`."""
    chains = load(directory)
    chains[name] = Chain((_overlay(directory, chains, size_bytes), below))
    save(directory, chains)
    return chains[name]


def grow(directory: Path) -> Chains:
    """Put an empty overlay on every chain of a directory in which nothing runs."""
    chains = load(directory)
    for name, chain in tuple(chains.items()):
        top = _overlay(directory, chains, virtual_bytes(chain.top))
        chains[name] = Chain((top, *_bounded(chain.layers)))
    save(directory, chains)
    return chains


def substitute(
    directory: Path, name: str, below: tuple[Layer, ...], fill: Callable[[int], None]
) -> Chain:
    """Replace a disk by a new file that `fill` writes, given its descriptor: an overlay over
    `below`, or a raw file.

    The record changes once the file is complete and on the disk; what it had goes after that.
    """
    chains = load(directory)
    size = virtual_bytes(chains[name].top)
    top = _overlay(directory, chains, size) if below else raw(directory, chains, size)
    try:
        descriptor = os.open(top.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fill(descriptor)
        finally:
            os.close(descriptor)
        chains[name] = Chain((top, *below))
        save(directory, chains)
    except BaseException as error:
        top.path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise qcow2.failure(top.path, error) from error
        raise
    sweep(directory)
    return chains[name]


def share(chains: Chains, directory: Path, *, writable: bool = False) -> Chains:
    """The same chains in another directory, by hard links: nobody may write them any more.

    With `writable` each gets an empty overlay there, to go on from.  The record there is written
    last, in the stead of any other; `sweep` removes what that had.
    """
    (directory / DIRECTORY).mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = load(directory)
    shared: Chains = {}
    for name, chain in chains.items():
        layers = [_linked(layer, directory, {**taken, **shared}) for layer in chain.layers]
        shared[name] = Chain(tuple(layers))
    if writable:
        for name, chain in tuple(shared.items()):
            top = _overlay(directory, {**taken, **shared}, virtual_bytes(chain.top))
            shared[name] = Chain((top, *_bounded(chain.layers)))
    save(directory, shared)
    return shared


def _linked(layer: Layer, directory: Path, taken: Chains) -> Layer:
    if layer.base:
        return layer
    raw = layer.path.name == FIRST
    target = directory / FIRST if raw else directory / DIRECTORY / layer.path.name
    if target.exists() and not target.samefile(layer.path):
        target = directory / DIRECTORY / str(_free(directory, taken))
    try:
        if not target.exists():
            os.link(layer.path, target)
    except OSError as error:
        raise qcow2.failure(target, error) from error
    return replace(layer, path=target)


def _overlay(directory: Path, chains: Chains, size_bytes: int) -> Layer:
    (directory / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    path = directory / DIRECTORY / str(_free(directory, chains))
    os.close(qcow2.create(path, size_bytes))
    return Layer(path, "qcow2")


def raw(directory: Path, chains: Chains, size_bytes: int) -> Layer:
    """A new raw file among those of a directory with these chains: all zeros, and no room taken."""
    (directory / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    return zeros(directory / DIRECTORY / str(_free(directory, chains)), size_bytes)


def zeros(path: Path, size_bytes: int) -> Layer:
    """A new raw file of zeros, which take no room."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(descriptor, size_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise qcow2.failure(path, error) from error
    return Layer(path, "raw")


def _free(directory: Path, chains: Chains) -> int:
    """A number no file of the directory has or had in a chain of it."""
    there = [int(name) for name in os.listdir(directory / DIRECTORY) if name.isdigit()]
    used = [layer.number for chain in chains.values() for layer in chain.layers]
    return 1 + max((*there, *used), default=0)


def _bounded(layers: tuple[Layer, ...]) -> tuple[Layer, ...]:
    if len(layers) >= LAYERS_MAXIMUM:
        raise HostError(
            f"the disk is a chain of '{len(layers)}' files already",
            hint="make it one: proa disk flatten",
        )
    return layers


# -- opening ---------------------------------------------------------------------------------------


def open_all(chain: Chain) -> Opened:
    """The files of a chain, the top for writing.  Raises Corrupt for one that is not what it was.

    The caller closes them.
    """
    with ExitStack() as undo:
        found: list[int] = []
        for position, layer in enumerate(chain.layers):
            found.append(open_layer(layer, writable=position == 0))
            undo.callback(os.close, found[-1])
        if os.fstat(found[0]).st_nlink > 1:
            raise Corrupt(f"the disk '{chain.top.path}' is shared, and nobody may write it")
        undo.pop_all()
    return _opened(chain, found)


def open_readonly(chain: Chain) -> Opened:
    """The files of a chain, all for reading."""
    with ExitStack() as undo:
        found: list[int] = []
        for layer in chain.layers:
            found.append(open_layer(layer))
            undo.callback(os.close, found[-1])
        undo.pop_all()
    return _opened(chain, found)


def _opened(chain: Chain, found: list[int]) -> Opened:
    formats = tuple(layer.format for layer in chain.layers)
    return Opened(tuple(found), formats, tuple(layer.number for layer in chain.layers))


def open_layer(layer: Layer, *, writable: bool = False) -> int:
    """One file, checked."""
    mode = os.O_RDWR if writable and not layer.base else os.O_RDONLY
    try:
        descriptor = os.open(layer.path, mode | os.O_CLOEXEC | os.O_NOFOLLOW * (not layer.base))
    except FileNotFoundError:
        raise Corrupt(f"the disk's file '{layer.path}' is gone") from None
    except OSError as error:
        raise HostError(f"cannot open the disk '{layer.path}': {error.strerror}") from error
    try:
        _check(layer, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(layer: Layer, descriptor: int) -> None:
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise Corrupt(f"the disk '{layer.path}' is no file")
    now = (facts.st_size, facts.st_mtime_ns)
    if layer.base and now != (layer.size_bytes, layer.mtime_ns):
        raise Corrupt(
            f"the base '{layer.path}' was changed after an instance was made of it",
            hint="put back the file as it was; what the instance wrote is kept",
        )
    if layer.format == "qcow2":
        found = qcow2.header(descriptor) if layer.base else qcow2.check(descriptor)
        if found.backing:
            raise Corrupt(f"the disk '{layer.path}' has a backing file, which is not followed")


_SIZES: dict[str, Callable[[int], int]] = {
    "raw": lambda descriptor: -(-os.fstat(descriptor).st_size // 512) * 512,
    "qcow2": lambda descriptor: qcow2.header(descriptor).size_bytes,
    "vmdk": lambda descriptor: int.from_bytes(os.pread(descriptor, 8, 12), "little") * 512,
    "vdi": lambda descriptor: int.from_bytes(os.pread(descriptor, 8, 0x170), "little"),
    "vhdx": lambda descriptor: _vhdx_bytes(os.pread(descriptor, 4 << 20, 0)),
}
_VHDX_SIZE = bytes.fromhex("2442a52f1bcd7648b2115dbed83bf4b8")


def virtual_bytes(layer: Layer) -> int:
    """How large the disk in a file is.  Raises Corrupt."""
    descriptor = open_layer(layer)
    try:
        return _SIZES[layer.format](descriptor)
    except KeyError:
        raise Corrupt(f"unknown format '{layer.format}' of the disk '{layer.path}'") from None
    finally:
        os.close(descriptor)


def _vhdx_bytes(head: bytes) -> int:
    """What the entry of the metadata table says; it is near the front, as all write it."""
    at = head.find(b"metadata")
    found = head.find(_VHDX_SIZE, at)
    if at < 0 or found < 0:
        raise Corrupt("the vhdx does not say how large it is")
    offset = at + int.from_bytes(head[found + 16 : found + 20], "little")
    return int.from_bytes(head[offset : offset + 8], "little")
