"""A checkpoint on disk: `memory` (all of the RAM, sparse), `state` (the devices), `saved.json`.

The last says what machine, QEMU and processor it is of, with checksums: a state that does not fit
is refused before a QEMU sees it.
"""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import ExitStack
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from proa.errors import Corrupt, Unsupported
from proa.host import files
from proa.isolation.vm import architectures, guest, qcow2, qemu, template
from proa.isolation.vm.checkpoint import Checkpoint, words

FORMAT = 1
FACTS = "saved.json"
STATE_MAXIMUM_BYTES = 64 << 20
RAM_MAXIMUM_BYTES = 1 << 42
COPY_BYTES = 1 << 20


def save(found: Checkpoint, directory: Path) -> None:
    """Write a checkpoint without a base into a new directory, durably."""
    directory.mkdir(mode=0o700)
    try:
        with (directory / "memory").open("xb") as file:
            file.truncate(found.shape.ram_bytes)
            digest = template.copy_sparse(found.pages, file.fileno())
        with (directory / "state").open("xb") as file:
            _copy(found.state, file.fileno())
    except OSError as error:
        raise qcow2.failure(directory, error) from error
    facts = {
        "format": FORMAT, **here(found.shape.architecture),
        "shape": asdict(found.shape), "board": list(words(found.shape)),
        "memory_digest": digest, "state_digest": template.file_digest(directory / "state"),
    }  # fmt: skip
    files.atomic_write(directory / FACTS, json.dumps(facts, indent=1).encode())
    files.sync_all(directory)


def load(directory: Path) -> Checkpoint:
    """A checkpoint with its RAM read in.  Raises Corrupt, Unsupported for one that does not fit."""
    facts = read(directory)
    shape = check(facts)
    with ExitStack() as undo:
        memory = os.memfd_create("proa-saved", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        undo.callback(os.close, memory)
        try:
            state = os.open(directory / "state", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            undo.callback(os.close, state)
            digest = _load_memory(directory / "memory", shape.ram_bytes, memory)
        except OSError as error:
            raise Corrupt(f"the saved machine is incomplete: {error.strerror}") from error
        if os.fstat(state).st_size > STATE_MAXIMUM_BYTES:
            raise Corrupt("the saved state of the devices is too large")
        found = (digest, template.file_digest(directory / "state"))
        if found != (facts["memory_digest"], facts["state_digest"]):
            raise Corrupt(
                "the saved machine does not match its checksums", hint="its disks can be restored"
            )
        undo.pop_all()
        return Checkpoint(shape, -1, memory, state)


def read(directory: Path) -> dict[str, Any]:
    """What is said of a saved machine.  Raises Corrupt."""
    try:
        facts: dict[str, Any] = json.loads((directory / FACTS).read_bytes())
        if facts["format"] == FORMAT:
            return facts
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise Corrupt("the description of the saved machine is damaged")


def here(architecture: str) -> dict[str, Any]:
    """What of this host a saved machine depends on."""
    known = architectures.find(architecture)
    return {
        "qemu": _version(str(known.program), architectures.version_key(known.name)),
        "processor": template.processor(), "tsc_khz": guest.tsc_khz(),
        "template": template.FORMAT,
    }  # fmt: skip


@lru_cache
def _version(program: str, key: str) -> str:
    """What a QEMU says it is; `key` changes with the program."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.partition("\n")[0].removeprefix("QEMU emulator version ")


def check(facts: dict[str, Any]) -> qemu.Machine:
    """The shape of a machine that can go on here.  Raises Unsupported with the reason."""
    try:
        shape = qemu.Machine(**facts["shape"])
        if not 0 < shape.ram_bytes <= RAM_MAXIMUM_BYTES or shape.ram_bytes % (1 << 20):
            raise ValueError
        same = shape.architecture in architectures.ALL and facts["board"] == list(words(shape))
    except (KeyError, TypeError, ValueError):
        raise Corrupt("the description of the saved machine is damaged") from None
    for name, value in here(shape.architecture).items():
        if facts.get(name) != value:
            raise Unsupported(
                f"the machine was saved where {name} is '{facts.get(name)}', here it is '{value}'",
                hint="restore its disks alone",
            )
    if not same:
        raise Unsupported(
            "the machine was saved by another version of the engine", hint="restore its disks alone"
        )
    return shape


def _load_memory(path: Path, size_bytes: int, memory: int) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size != size_bytes:
            raise Corrupt("the saved memory has another size")
        os.ftruncate(memory, size_bytes)
        return template.copy_sparse(descriptor, memory)
    finally:
        os.close(descriptor)


def _copy(source: int, target: int) -> None:
    offset = 0
    while data := os.pread(source, COPY_BYTES, offset):
        os.pwrite(target, data, offset)
        offset += len(data)


def stored_bytes(directory: Path) -> int:
    """What it takes on disk."""
    return sum(item.stat().st_blocks * 512 for item in directory.iterdir())
