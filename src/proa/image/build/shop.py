"""What all stages of one build share, and the steps they have in common: find in the cache, or
make, tell, and keep."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from proa.errors import BuildError, Cancelled, NoSpace, ProaError
from proa.image import config
from proa.image.build.context import Context
from proa.image.build.plan import Plan
from proa.image.build.request import BuildRequest, Output, Report, Transfer, Vertex
from proa.image.build.step import Runner
from proa.image.build.text import did_you_mean
from proa.image.catalog import Image
from proa.image.store import Images

PAUSE_SECONDS = 0.02
Fetch = Callable[[str, bool, str], Image]  # name, whether to ask the registry anyway, platform


@dataclass
class Line:
    """One line of progress while it is worked on; `state` is what it ends as."""

    number: int
    state: str = "done"


@dataclass
class Shop:
    """One build at work; `undo` runs at its end, whatever happens."""

    images: Images
    runner: Runner
    request: BuildRequest
    plan: Plan
    report: Report
    fetch: Fetch
    workspace: Path
    undo: ExitStack
    stop: threading.Event = field(default_factory=threading.Event)
    slots: threading.Semaphore = field(
        default_factory=lambda: threading.Semaphore(os.cpu_count() or 1)
    )

    def __post_init__(self) -> None:
        self.cache, self.mounts = self.images.build_cache, self.images.cache_mounts
        self._guard = threading.RLock()
        self._count = self._lines = 0
        self._contexts: dict[str, Context] = {}
        self._images: dict[tuple[str, str], Image] = {}
        self.nothing = self.path(make=True)

    # -- cancelling -----------------------------------------------------------------------------

    def check(self) -> None:
        """Raise Cancelled when nobody wants the build any more, or another stage failed."""
        if self.stop.is_set():
            raise Cancelled("the build was cancelled")

    def pause(self) -> None:
        """Wait a moment for somebody else's work."""
        self.check()
        self.stop.wait(PAUSE_SECONDS)

    # -- shared things --------------------------------------------------------------------------

    def path(self, *, make: bool = False) -> Path:
        """A new name in the build's workspace."""
        with self._guard:
            self._count += 1
            path = self.workspace / str(self._count)
        if make:
            path.mkdir(mode=0o755)
        return path

    def context(self, directory: str = "") -> Context:
        """The build's context, or a named one."""
        with self._guard:
            if directory not in self._contexts:
                request = self.request
                own = request.context or self.nothing
                found = Context(
                    Path(directory) if directory else own, self.cache.files,
                    request.name, None if directory else request.ignore,
                )  # fmt: skip
                self.undo.callback(found.close)
                self._contexts[directory] = found
            return self._contexts[directory]

    def image(self, name: str, platform: str = "") -> Image:
        """An image by name, fetched once per build."""
        with self._guard:
            known = self._images.get((name, platform))
        if known is None:
            known = self._fetched(name, platform or self.request.platform)
            with self._guard:
                known = self._images.setdefault((name, platform), known)
        return known

    def _fetched(self, name: str, platform: str) -> Image:
        try:
            return self.fetch(name, self.request.pull, platform)
        except (Cancelled, NoSpace):
            raise
        except ProaError as error:
            meant = did_you_mean(name, self.plan.names())
            message = f"cannot get the image '{name}': {error.message}"
            raise BuildError(message, hint=meant or error.hint) from error

    # -- progress -------------------------------------------------------------------------------

    def lines(self, count: int) -> int:
        """Reserve numbers for lines of progress; gives the first."""
        with self._guard:
            first, self._lines = self._lines + 1, self._lines + count
        return first

    @contextmanager
    def line(self, number: int, name: str) -> Iterator[Line]:
        """One line of progress, told when it begins and how it ends."""
        line, started = Line(number), time.monotonic()
        self.tell(Vertex(number, name, "started"))

        def end(state: str, error: str = "") -> None:
            self.tell(Vertex(number, name, state, time.monotonic() - started, error))

        try:
            yield line
        except Cancelled:
            end("cancelled")
            raise
        except ProaError as error:
            end("failed", error.message)
            raise
        except BaseException as error:
            end("failed", type(error).__name__)
            raise
        end(line.state)

    def tell(self, event: Vertex | Output | Transfer) -> None:
        """Report something, one thread at a time."""
        with self._guard:
            self.report(event)

    def moved(self, number: int, id: str) -> Callable[[int, int], None]:
        """A reporter of bytes for a line."""
        return lambda current, total: self.tell(Transfer(number, id, current, total))

    # -- time -----------------------------------------------------------------------------------

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH, when there is one."""
        return self.request.epoch_seconds

    def now(self) -> str:
        """This moment, or the epoch, for an image's history."""
        return config.now() if self.epoch is None else moment(self.epoch)


def moment(seconds: int) -> str:
    """A time as an image's history has it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
