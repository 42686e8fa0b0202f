"""An image of a declaration: layers of packages, a layer of configuration, a name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proa.errors import Invalid
from proa.image import platforms, reference
from proa.image.build.step import Runner
from proa.image.catalog import Image
from proa.image.layer.mounted import mounted
from proa.image.packages import configure, deb, rpm, sources
from proa.image.packages.spec import DEB, RPM, Spec
from proa.image.packages.work import Made, Request, Work, fresh
from proa.image.progress import Progress
from proa.image.store import Images

_INSTALLERS: dict[str, Callable[[Work], list[Made]]] = {DEB: deb.install, RPM: rpm.install}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Means:
    """What a build works with: the store, who runs scripts, and a directory that lasts."""

    images: Images
    runner: Runner
    cache: Path


def build(means: Means, request: Request, progress: Progress, cancel: threading.Event) -> Image:
    """Make the image and name it.

    Raises Invalid for what the declaration asks and cannot be had, BuildError when a package's
    script fails.
    """
    _check(request)
    means.cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    with means.images.assembly() as assembly, means.images.workspace() as workspace:
        work = Work(request, assembly, workspace, means.cache, means.runner, progress, cancel)
        made = _INSTALLERS[request.spec.format](work)
        made.append(_configured(work, made))
        work.say("Writing the image")
        layers = [item.layer for item in made]
        return assembly.image(_document(request.spec, made), layers, request.names)


def _check(request: Request) -> None:
    """What is wrong is said before the work, not after it."""
    spec = request.spec
    for name in request.names:
        if reference.parse(name).digest:
            raise Invalid(f"cannot name an image by a digest: '{name}'")
    wanted = [file.source for file in spec.files] + [item.key for item in spec.repositories]
    for name in filter(None, wanted):
        if name not in request.sources:
            raise Invalid(f"the file '{name}' is not beside the declaration")


def _configured(work: Work, made: list[Made]) -> Made:
    """The layer with the declaration's own users and files."""
    work.say("Adding users and files")
    epoch = max(item.epoch_seconds for item in made)
    directory = fresh(work, "configuration")
    layers = [item.layer.root for item in reversed(made)]
    with mounted(layers, directory) as root:
        configure.configure(root, work.spec, work.request.sources, epoch)
    layer = work.assembly.layer_from_upper(directory / "upper", epoch)
    return Made(layer, epoch, "users and files")


def _document(spec: Spec, made: list[Made]) -> dict[str, Any]:
    """The OCI configuration (image-spec, config.md)."""
    created = _time(max(item.epoch_seconds for item in made))
    history = [{"created": _time(item.epoch_seconds), "created_by": item.made_by} for item in made]
    name = spec.architecture or sources.host_architecture()
    document: dict[str, Any] = {
        "created": created, "architecture": platforms.on(name).architecture, "os": "linux",
        "config": _config(spec), "history": history,
    }  # fmt: skip
    if name == "armhf":
        document["variant"] = "v7"
    return document


def _config(spec: Spec) -> dict[str, Any]:
    run = spec.run
    environment = {"PATH": _PATH, **run.environment}
    ports = [port if "/" in port else f"{port}/tcp" for port in run.ports]
    fields: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "Entrypoint": list(run.entrypoint), "Cmd": list(run.command),
        "WorkingDir": run.directory, "User": run.user, "StopSignal": run.stop_signal,
        "ExposedPorts": {port: {} for port in ports},
        "Volumes": {path: {} for path in run.volumes}, "Labels": dict(sorted(run.labels.items())),
    }  # fmt: skip
    return {name: value for name, value in fields.items() if value}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
