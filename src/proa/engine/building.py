"""What a client's build needs beside `Engine.build`: its files, for as long as the build lasts.

The vocabulary of a build is handed on from the image service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from proa.image import reference
from proa.image.build.request import BuildRequest as BuildRequest
from proa.image.build.request import Output as Output
from proa.image.build.request import Transfer as Transfer
from proa.image.build.request import Vertex as Vertex
from proa.image.layer.source import Source
from proa.image.store import Images

Event = Vertex | Output | Transfer


@dataclass(frozen=True)
class Origin:
    """Where a build's context comes from: a URL, else a tar that was sent, else the request.

    `containerfile` is its path in a context that came so; empty: the usual names are tried.
    """

    remote: str = ""
    sent: Source | None = None
    containerfile: str = ""


@contextmanager
def with_files(
    images: Images, request: BuildRequest, origin: Origin, check: Callable[[], None]
) -> Iterator[BuildRequest]:
    """The request with its context and Containerfile; both are gone afterwards.

    `check` raises when nobody wants them any more.  A Containerfile that the request has already
    is kept.
    """
    from proa.image.build import upload

    if origin.remote:
        with upload.fetched(images, origin.remote, check) as arrived:
            made = replace(request, context=arrived.directory)
            if arrived.containerfile is not None:
                yield replace(made, containerfile=arrived.containerfile, name="Containerfile")
            else:
                yield _with_containerfile(made, origin)
    elif origin.sent is not None:
        with upload.received(images, origin.sent) as directory:
            yield _with_containerfile(replace(request, context=directory), origin)
    else:
        yield request


def _with_containerfile(request: BuildRequest, origin: Origin) -> BuildRequest:
    from proa.image.build import upload

    if request.containerfile or request.context is None:
        return request
    name, text = upload.containerfile(request.context, origin.containerfile)
    return replace(request, containerfile=text, name=name)


def registry_of(host: str) -> str:
    """The registry that a key of Docker's configuration means: `https://index.docker.io/v1/`."""
    bare = host.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return reference.DEFAULT_REGISTRY if bare in _HUB else bare


_HUB = frozenset({"index.docker.io", "registry-1.docker.io", reference.DEFAULT_REGISTRY})


def familiar(name: str) -> str:
    """An image's name as people are shown it.  Raises Invalid."""
    return reference.parse(name).familiar
