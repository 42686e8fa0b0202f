"""Images of labelled cases: docker-archives of package layers and one layer of their own files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support import debs
from tests.support.cases import Case, File, Link
from tests.support.images import Layer, archive


def image_archive(case: Case) -> bytes:
    """What `docker load` takes; its image is called as the case."""
    names = (*debs.BASE, *case.packages) if case.packages else ()
    layers = [debs.layer(name) for name in names]
    own = Layer()
    if names:
        own.file("var/lib/dpkg/status", debs.status(names))
    for name in names:
        fill(own, debs.links(name))
    fill(own, case.tree)
    config: dict[str, Any] = dict(case.config)
    if "ExposedPorts" in config:
        config["ExposedPorts"] = {port: {} for port in config["ExposedPorts"]}
    if "Volumes" in config:
        config["Volumes"] = {path: {} for path in config["Volumes"]}
    config["architecture"] = case.platform.partition("/")[2]
    return archive(case.name, *layers, own.bytes(), **config)


def fill(layer: Layer, tree: Mapping[str, object]) -> None:
    """A tree's files and links."""
    for path, what in tree.items():
        if isinstance(what, Link):
            layer.symlink(path, what.target)
        elif isinstance(what, File):
            layer.file(path, what.data, what.mode)
        else:
            assert isinstance(what, bytes | str)
            layer.file(path, what)
