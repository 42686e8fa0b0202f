"""Debian packages as image layers: fetched once, their files as they are, their units enabled."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.conftest import need
from tests.support.cases import Link, Tree
from tests.support.paths import ROOT

KEPT = ROOT / "build" / "test-debs"
BASE = ("base-files", "libc6", "dash")
_WANTED_BY = re.compile(r"^WantedBy=(.+)$", re.MULTILINE)


@cache
def fetched(names: tuple[str, ...]) -> dict[str, Path]:
    """The packages' files by name, from Debian's mirror unless they are here."""
    KEPT.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if not _here(name)]
    if missing:
        order = ["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", *missing]
        done = subprocess.run(order, cwd=KEPT, capture_output=True, text=True, timeout=300)
        need(done.returncode == 0, "mirror", f"packages cannot be had: {done.stderr[-300:]}")
    return {name: found for name in names if (found := _here(name))}


def _here(name: str) -> Path | None:
    return next(iter(sorted(KEPT.glob(f"{name}_*.deb"))), None)


@cache
def layer(name: str) -> bytes:
    """A package's files as a tar."""
    path = fetched((name,))[name]
    order = ["dpkg-deb", "--fsys-tarfile", str(path)]
    return subprocess.run(order, check=True, capture_output=True).stdout


@cache
def links(name: str) -> Tree:
    """Links that enable a package's units, as its installation makes them."""
    found: dict[str, Link] = {}
    with tarfile.open(fileobj=io.BytesIO(layer(name))) as archive:
        for member in archive:
            unit = member.name.rpartition("/")[2]
            if "systemd/system/" in member.name and member.isreg() and unit.endswith(".service"):
                file = archive.extractfile(member)
                text = file.read().decode() if file else ""
                for target in _WANTED_BY.findall(text):
                    wants = f"etc/systemd/system/{target.strip()}.wants/{unit}"
                    found[wants] = Link(f"/{member.name.removeprefix('./')}")
    return found


def status(names: Sequence[str]) -> str:
    """dpkg's database of installed packages."""
    stanzas = []
    for name in names:
        path = fetched((name,))[name]
        text = subprocess.run(["dpkg-deb", "-f", path], check=True, capture_output=True, text=True)
        head, _, rest = text.stdout.partition("\n")
        stanzas.append(f"{head}\nStatus: install ok installed\n{rest}")
    return "\n".join(stanzas)
