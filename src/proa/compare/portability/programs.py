"""What all programs of an image say of the hosts they are for, read from its tar as it passes."""

from __future__ import annotations

import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from proa.advice import elf

# Libraries compiled for better processors, taken only where they fit (ld.so(8), glibc 2.33).
VARIANTS = re.compile(r"/glibc-hwcaps/([^/]+)/|/lib/haswell/")
MODULES = re.compile(r"^(usr/)?lib/modules/([^/]+)/.*\.ko(\.\w+)?$")


@dataclass
class Found:
    """What was found; `kernel` and `level` are the highest demands, each with a file that has it.

    `stating` counts the files that state a kernel at all, `levelled` those that state a level.
    """

    architectures: Counter[str] = field(default_factory=Counter)
    kernel: tuple[int, ...] = ()
    kernel_of: str = ""
    stating: int = 0
    level: str = ""
    level_of: str = ""
    levelled: int = 0
    variants: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)

    @property
    def count(self) -> int:
        """How many programs and libraries there are."""
        return self.architectures.total()

    def add(self, path: str, program: elf.Program) -> None:
        """Count one file in."""
        self.architectures[program.architecture] += 1
        if variant := VARIANTS.search("/" + path):
            self.variants.add(variant[1] or "haswell")
            return  # asked for only where it fits
        self.stating += bool(program.kernel)
        self.levelled += bool(program.level)
        if program.kernel > self.kernel:
            self.kernel, self.kernel_of = program.kernel, path
        if program.level and (
            not self.level or elf.LEVELS.index(program.level) > elf.LEVELS.index(self.level)
        ):
            self.level, self.level_of = program.level, path


class Pieces(io.RawIOBase):
    """A file to read of bytes that come in pieces."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: object) -> int:
        """The next bytes, 0 at the end."""
        if not self._rest:
            self._rest = memoryview(next((piece for piece in self._pieces if piece), b""))
        into = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = min(len(into), len(self._rest))
        into[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def survey(tar: Iterable[bytes]) -> Found:
    """What the programs in a tar of a root file system say."""
    found = Found()
    with tarfile.open(fileobj=io.BufferedReader(Pieces(tar), 1 << 20), mode="r|") as archive:
        for path, head in _heads(archive):
            if module := MODULES.match(path):
                found.modules.add(module[2])
            elif program := elf.read(head):
                found.add(path, program)
    return found


def _heads(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """(path, first bytes) of the ELF files; a tar that passes is read in order."""
    while member := archive.next():
        archive.members = []  # type: ignore[attr-defined]  # it keeps every one it has met
        if not member.isfile() or member.size < len(b"\x7fELF"):
            continue
        file = archive.extractfile(member)
        if file is None:
            continue
        magic = file.read(4)
        if magic == b"\x7fELF":
            yield member.name.removeprefix("./"), magic + file.read(elf.HEAD_BYTES - 4)
