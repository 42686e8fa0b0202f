"""The waist: what an isolation is to the engine.

`Isolation` makes places, `Running` is one.  More verbs need a strong reason; new questions become
data in `features` or `facts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from proa.agent import Agent
from proa.host.cgroup import Usage
from proa.resources import Disk, Launch, Link, Share, Sources
from proa.spec import Limits

if TYPE_CHECKING:
    from proa.costs import Memory


@dataclass(frozen=True)
class Features:
    """What instances of an isolation can do, as data, so that nobody asks for its name."""

    shares_kernel: bool
    live_memory_update: bool
    live_cpu_update: bool
    processes_visible_to_host: bool
    machines: bool = False  # also boots disks with systems of their own
    disks: bool = False  # can be given further ones
    changes: str = ""  # empty: the rootfs's `upper` has them; else a disk for the builtin `changes`


class Running(Protocol):
    """A place that is up."""

    @property
    def saved(self) -> dict[str, Any]:
        """JSON-able data from which `adopt` rebuilds this handle."""

    @property
    def placed_ns(self) -> int:
        """When there was a place, its init not awaited yet: monotonic; 0 when that is not known."""

    @property
    def sources(self) -> Sources:
        """Where the place put what it was given, for the launch plan; valid until launched."""

    @property
    def facts(self) -> dict[str, str]:
        """What a user may want to know: accelerator, kernel, how it was started."""

    def agent(self) -> Agent:
        """The connection to its monitor and init."""

    def enter(self) -> tuple[Agent, int]:
        """The way in for further processes: whom to ask, and what flags an EXEC then has.

        Raises Conflict while nobody inside listens.
        """

    def launched(self, limits: Limits) -> None:
        """The launch was told to have worked: see to what only now can be seen to.

        Raises IsolationError when it did not work after all.
        """

    def signal(self, number: int) -> None:
        """Send a signal to the main process, or what comes nearest to it."""

    def pause(self) -> None:
        """Freeze the whole place."""

    def resume(self) -> None:
        """Thaw it."""

    def hold(self) -> None:
        """Stop its processes for a moment; the place itself still answers."""

    def let_go(self) -> None:
        """Let them run again."""

    def update(self, limits: Limits) -> None:
        """Change limits while running.  Raises Unsupported when it cannot."""

    def plug(self, item: Link | Share | Disk) -> None:
        """Add a link, a share or a disk while running.  Raises Unsupported when it cannot."""

    def unplug(self, item: Link | Share | Disk) -> None:
        """Take one away again."""

    def usage(self) -> Usage:
        """Cost to the host now."""

    def memory(self) -> Memory:
        """Where the memory is that it costs the host."""

    def inside(self) -> Usage:
        """What the instance itself uses, by its own kernel's account."""

    def kill(self) -> None:
        """End everything and release what `start` acquired; idempotent."""


class Isolation(Protocol):
    """A way to make places."""

    name: str
    features: Features

    def check(self) -> list[str]:
        """Reasons this host cannot; empty when it can."""

    def start(self, launch: Launch) -> Running:
        """Make a place; returns when its init answers."""

    def adopt(self, saved: dict[str, Any]) -> Running:
        """A handle on a place an earlier engine made.  Raises IsolationError."""

    def repair(self, live: set[str]) -> None:
        """Remove what no live instance (by id) owns; after the engine was away."""

    def close(self) -> None:
        """Give back what is kept ready; instances live on."""
