"""An image as one read-only EROFS disk: what a vm sees of it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import threading
import uuid
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from proa.errors import HostError, NoSpace, Unsupported
from proa.image.layer import tree
from proa.image.layer.unpacked import facts_at
from proa.image.layout import Layout

_OUTPUT_SHOWN = 2000

# Layers have short names in the working directory because mount(2) takes one page of options.
# The mount is in a namespace of its own and is gone with the shell, however that ends.
_MERGE = """
mount -t overlay -o "ro,index=off,metacopy=off,redirect_dir=nofollow,lowerdir=$1" overlay merged
shift
exec "$@" merged
"""


class Disks:
    """Makes and keeps the disks of a store's images."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._guard = threading.Lock()
        self._locks: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def disk(self, image_id: str, layers: Sequence[Path]) -> Path:
        """The disk of these layers, topmost first; made now when it is not there."""
        final = self._layout.disk(image_id)
        if final.exists():
            return final
        with self._guard:
            lock = self._locks[image_id]
        with lock:
            if not final.exists():
                with tree.reporting(f"make the disk of image '{image_id[7:19]}'"):
                    self._make(image_id, layers, final)
        return final

    def _make(self, image_id: str, layers: Sequence[Path], final: Path) -> None:
        with self._layout.workspace() as work:
            made = work / "disk"
            command = _mkfs(image_id, made)
            if len(layers) == 1 and not _hides(layers[0]):
                _run([*command, str(layers[0])], work)
            else:
                _merge(command, [*layers, self._layout.nothing], work)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            made.chmod(0o400)
            with self._layout.lock():
                self._layout.move_in(made, final)


def _hides(root: Path) -> bool:
    """Whether marks for overlayfs are in it, which a plain copy would show."""
    facts = facts_at(root.parent)
    return facts is not None and facts.hides


def _mkfs(image_id: str, target: Path) -> list[str]:
    program = shutil.which("mkfs.erofs", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if program is None:
        raise Unsupported(
            "cannot make a disk of an image: no 'mkfs.erofs'", hint="install 'erofs-utils'"
        )
    identity = str(uuid.UUID(image_id[7:39]))
    return [program, "--quiet", "--preserve-mtime", f"-U{identity}", str(target)]


def _merge(command: Sequence[str], layers: Sequence[Path], work: Path) -> None:
    (work / "merged").mkdir()
    for number, layer in enumerate(layers):
        (work / str(number)).symlink_to(layer)
    lower = ":".join(str(number) for number in range(len(layers)))
    shell = ["unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", _MERGE, "merge"]
    _run([*shell, lower, *command], work)


def _run(command: Sequence[str], directory: Path) -> None:
    result = subprocess.run(
        command, cwd=directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if result.returncode == 0:
        return
    said = " ".join(result.stdout.decode(errors="replace").split())[:_OUTPUT_SHOWN]
    if "No space left" in said:
        raise NoSpace("cannot make the disk of an image: no space left on the disk")
    shown = shlex.join(" ".join(word.split()) for word in command)
    raise HostError(f"'{shown}' failed with exit code {result.returncode}: {said or 'no output'}")
