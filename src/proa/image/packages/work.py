"""What the parts of one build from packages share, and the two things they do with it."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proa.errors import BuildError
from proa.image import platforms
from proa.image.assembly import Assembly, Layer
from proa.image.build.step import Runner, Step, StepMount
from proa.image.layer import pack
from proa.image.packages import normalise
from proa.image.packages.spec import Spec
from proa.image.progress import Progress
from proa.image.progress import Step as Line

PACKAGES = "/run/proa-packages"  # where a place sees the packages to install
TOOLS = "/run/proa-tools"  # and the program that installs them, when the image has none
_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}  # fmt: skip
_SHOWN = 2000
_CLOCK_SLACK_SECONDS = 5.0  # a guest's clock may be a little behind ours


@dataclass(frozen=True)
class Request:
    """One build: the declaration, and the files beside it by their names there.

    `offline`: only what an earlier build downloaded.  `isolation` is of the place in which the
    packages' scripts run; empty means the engine's default.
    """

    spec: Spec
    sources: Mapping[str, bytes]
    names: tuple[str, ...] = ()
    isolation: str = ""
    offline: bool = False


@dataclass(frozen=True)
class Work:
    """A build under way; `workspace` is a directory of the store's file system, `cache` lasts."""

    request: Request
    assembly: Assembly
    workspace: Path
    cache: Path
    runner: Runner
    progress: Progress
    cancel: threading.Event

    @property
    def spec(self) -> Spec:
        """The declaration."""
        return self.request.spec

    def say(self, status: str, id: str = "") -> None:
        """One line of progress."""
        self.progress(Line(status, id))


@dataclass(frozen=True)
class Made:
    """A finished layer; nothing in it is younger than `epoch_seconds`."""

    layer: Layer
    epoch_seconds: int
    made_by: str


def fresh(work: Work, name: str) -> Path:
    """A directory with an empty upper layer, whose root is as any image's."""
    directory = work.workspace / name
    for path in (directory, directory / "upper", directory / "work"):
        path.mkdir(mode=0o755)
    return directory


def link_packages(work: Work, name: str, found: Sequence[Path]) -> Path:
    """A directory of just these packages, for a place to see."""
    directory = work.workspace / name
    directory.mkdir(mode=0o755)
    for path in found:
        try:
            os.link(path, directory / path.name)
        except OSError:
            shutil.copyfile(path, directory / path.name)
    return directory


@dataclass(frozen=True)
class Shown:
    """A directory of the workspace that a place sees, unchangeable."""

    target: str
    source: Path


@dataclass(frozen=True)
class Call:
    """A command, the layers it runs over (topmost first), what it sees beside them."""

    command: tuple[str, ...]
    layers: tuple[Path, ...]
    shown: tuple[Shown, ...]
    environment: Mapping[str, str]


def run_script(
    work: Work, script: str, upper: Path, layers: Sequence[Path], packages: Path
) -> None:
    """Run a shell script of the layers' own shell; see `run_in_place`."""
    command = ("/bin/sh", "-ec", script)
    environment = {
        "DEBIAN_FRONTEND": "noninteractive", "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "DEBCONF_NOWARNINGS": "yes", "DPKG_FORCE": "unsafe-io",
    }  # fmt: skip
    if work.spec.epoch_seconds is not None:
        environment["SOURCE_DATE_EPOCH"] = str(work.spec.epoch_seconds)
    shown = (Shown(PACKAGES, packages),)
    run_in_place(work, Call(command, tuple(layers), shown, environment), upper)


def run_in_place(work: Work, call: Call, upper: Path) -> None:
    """Run a command as root in a place, without network; its changes are kept in `upper`.

    Raises BuildError with the end of its output when it fails.
    """
    said = bytearray()

    def hear(stream: int, data: bytes) -> None:
        said.extend(data)
        del said[:-_SHOWN]

    environment = {**_ENVIRONMENT, **call.environment}
    step = Step(
        arguments=call.command,
        environment=tuple(f"{key}={value}" for key, value in environment.items()),
        mounts=tuple(
            StepMount("bind", item.target, layers=(item.source,), readonly=True)
            for item in call.shown
        ),
        network="none",
        isolation=work.request.isolation,
        architecture=platforms.on(work.spec.architecture).architecture,
    )
    code = work.runner.run(step, call.layers, upper, hear, work.cancel)
    if code:
        text = " ".join(bytes(said).decode(errors="replace").split())
        raise BuildError(
            f"installing the packages failed with exit code {code}: {text or 'no output'}",
            step_exit=code,
        )


def now_seconds() -> float:
    """The time that what packages bring is older than."""
    return time.time() - _CLOCK_SLACK_SECONDS


@dataclass(frozen=True)
class Origin:
    """What a layer is of: when its making began, the epoch of the layer below, how it was made."""

    began_seconds: float
    floor_seconds: int
    made_by: str


def seal(work: Work, directory: Path, origin: Origin, below: Path | None = None) -> Made:
    """Make a layer of `directory`/upper: cleaned, nothing younger than its epoch.

    The epoch is the declaration's, or the newest file a package brought (never before the layer
    below).  With `below`, a directory that nobody needs any more, the layer is of both.
    """
    upper = directory / "upper"
    parts = [upper] if below is None else [upper, below]
    epoch = work.spec.epoch_seconds
    for part in parts:
        normalise.clean(part, work.spec)
    if epoch is None:
        found = [normalise.newest(part, origin.began_seconds) for part in parts]
        epoch = max(origin.floor_seconds, *found)
    normalise.settle_shadow(upper, epoch)
    if below is None:
        return Made(work.assembly.layer_from_upper(upper, epoch), epoch, origin.made_by)
    with tempfile.TemporaryFile(dir=work.workspace) as merged:
        pack.pack_merged(parts, merged, epoch)
        merged.seek(0)
        return Made(work.assembly.layer_from_tar(merged), epoch, origin.made_by)
