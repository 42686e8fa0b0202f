"""Builds by the image service itself, with or without somebody to run their steps."""

from __future__ import annotations

import io
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.engine import config
from proa.engine.core import Core
from proa.engine.steps import Steps
from proa.errors import ImageNotFound
from proa.host import files
from proa.image.build import solve
from proa.image.build.request import BuildRequest, Output, Transfer, Vertex
from proa.image.build.step import Output as Heard
from proa.image.build.step import Runner, Step
from proa.image.catalog import Image
from proa.image.store import Images
from tests.support.corpus import Held, held
from tests.support.engine import leftovers
from tests.support.images import Layer, archive, busy_image

PASSWD = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1001::/:/bin/sh\n"
GROUP = "root:x:0:\nstaff:x:50:\n"


class Nobody:
    """A runner for builds that have nothing to run; what it is asked for is a step that fails."""

    def run(
        self, step: Step, layers: Sequence[Path], upper: Path, output: Heard,
        cancel: threading.Event,
    ) -> int:  # fmt: skip
        output(2, b"nobody runs steps here\n")
        return 99


@dataclass(frozen=True)
class Built:
    """An image and what was told on the way."""

    image: Image
    held: Held
    events: list[Vertex | Output | Transfer]

    @property
    def files(self) -> dict[str, tuple[Any, ...]]:
        """By path: kind, mode, owner, group, content or target, attributes."""
        return self.held.files

    def content(self, path: str) -> str:
        """What is in a file."""
        return str(self.files[path][4].decode())

    def owner(self, path: str) -> tuple[int, int]:
        """Whose it is."""
        return self.files[path][2], self.files[path][3]

    def mode(self, path: str) -> int:
        """Its permissions."""
        return int(self.files[path][1], 8)

    def states(self) -> list[str]:
        """How each line of progress ended but the last, in the order they did."""
        ended = [one for one in self.events if isinstance(one, Vertex) and one.state != "started"]
        return [one.state for one in ended[:-1]]

    def said(self) -> str:
        """All that steps wrote."""
        return b"".join(one.data for one in self.events if isinstance(one, Output)).decode()


@dataclass
class Builds:
    """A store, who runs steps for it, and a directory for contexts."""

    images: Images
    base: Path
    runner: Runner = field(default_factory=Nobody)
    events: list[Vertex | Output | Transfer] = field(default_factory=list)

    def context(self, files: dict[str, str | bytes]) -> Path:
        """A new directory with these files; a name that ends with a slash is a directory, one
        with an arrow a link."""
        made = Path(tempfile.mkdtemp(dir=self.base))
        for name, content in files.items():
            path, arrow, target = name.partition(" -> ")
            there = made / path
            there.parent.mkdir(parents=True, exist_ok=True)
            if arrow:
                there.symlink_to(target)
            elif path.endswith("/"):
                there.mkdir(exist_ok=True)
            else:
                there.write_bytes(content.encode() if isinstance(content, str) else content)
                there.chmod(0o644)
        return made

    def build(
        self, text: str, source: dict[str, str | bytes] | Path | None = None, **options: Any
    ) -> Built:
        """Build it; the context is a directory, or made of files."""
        context = source if isinstance(source, Path) else self.context(source or {})
        cancel = options.pop("cancel", None) or threading.Event()
        self.events = []
        request = BuildRequest(text.encode(), context=context, names=("built",), **options)
        means = solve.Means(self.images, self.runner, self._fetch)
        image = solve.build(means, request, self.events.append, cancel)
        saved = io.BytesIO()
        self.images.save([image.id], saved)
        return Built(image, held(saved.getvalue()), self.events)

    def _fetch(self, name: str, pull: bool, platform: str) -> Image:
        if pull:
            raise ImageNotFound(f"nobody has '{name}'")
        return self.images.get(name)

    def load(self, name: str, layer: Layer, **config: Any) -> None:
        """A base image."""
        self.images.load(io.BytesIO(archive(name, layer.bytes(), **config)))

    def clean(self) -> bool:
        """Whether nothing of any build is left at work."""
        return not any((self.images.build_directory.parent / "tmp").iterdir())


def small() -> Layer:
    """A base with users, and links to trip over."""
    layer = Layer()
    for path in ("etc", "srv", "real"):
        layer.directory(path)
    layer.file("etc/passwd", PASSWD)
    layer.file("etc/group", GROUP)
    layer.symlink("link", "/real")
    layer.symlink("dangling", "/made/by/copy")
    layer.symlink("out", "/../../../../escaped")
    layer.file("srv/file", "old\n")
    return layer


def tarred(files: dict[str, str], mode: str = "w") -> bytes:
    """A tar of files, compressed as tarfile's mode says."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as made:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.gid, member.mtime = len(content), 5, 6, 7
            made.addfile(member, io.BytesIO(content.encode()))
    return buffer.getvalue()


@contextmanager
def running_builds(vm: Path | None = None) -> Iterator[Builds]:
    """Builds whose steps really run, with the base `busy`; `vm` is saved machines to share.

    At the end nothing may be left of them on the host.
    """
    base = Path(tempfile.mkdtemp(prefix="proa-build-", dir="/tmp"))
    root = base / "root"
    root.mkdir()
    if vm is not None:
        (root / "vm").symlink_to(vm)
    core = Core(config.load(root))
    core.images.load(io.BytesIO(busy_image()))
    made = Builds(core.images, base, Steps(core))
    yield made
    assert made.clean()
    assert not any((root / "instances").iterdir())
    for isolation in core.isolations.values():
        isolation.close()
    core.places.close()
    core.networks.destroy()
    core.places.destroy()
    core.state.close()
    left = leftovers(root)
    assert not left, left
    files.remove_tree(base)
