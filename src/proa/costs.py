"""What sizes and costs are told in, from where they are found to where they are shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """One share of a whole (a size's, a memory's); `shared` when others on the host use it, too."""

    name: str
    bytes: int
    shared: bool = False
    note: str = ""


@dataclass(frozen=True)
class Memory:
    """Where the memory is that an instance costs the host; `parts` are all of it.

    `beside` is there as well, but not the instance's alone to answer for.  `processes` are those
    of the host, `cpu_ns` what all of them have used since they were started.
    """

    parts: tuple[Part, ...]
    beside: tuple[Part, ...]
    processes: int
    cpu_ns: int

    @property
    def private_bytes(self) -> int:
        """What ends with the instance."""
        return sum(part.bytes for part in self.parts if not part.shared)

    @property
    def shared_bytes(self) -> int:
        """Its share of what others use."""
        return sum(part.bytes for part in self.parts if part.shared)

    @property
    def pss_bytes(self) -> int:
        """All of it."""
        return self.private_bytes + self.shared_bytes


@dataclass(frozen=True)
class LayerSize:
    """One layer, lowest first; `shared` when another image has it, too.

    A `plain` one is kept as it is: its compressed bytes are the blob's, unless they are measured.
    """

    diff_id: str
    digest: str
    media_type: str
    compressed_bytes: int
    unpacked_bytes: int
    shared: bool
    plain: bool = False
