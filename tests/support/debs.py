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
from tests.support.images import Layer
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
    """A package's files, and links that enable its units, as its installation makes them."""
    path = fetched((name,))[name]
    plain = subprocess.run(["dpkg-deb", "--fsys-tarfile", path], check=True, capture_output=True)
    made = Layer()
    with tarfile.open(fileobj=io.BytesIO(plain.stdout)) as archive:
        for member in archive:
            member.name = member.name.removeprefix("./")
            if not member.name or member.name == ".":
                continue
            file = archive.extractfile(member) if member.isreg() else None
            content = file.read() if file else b""
            made.tar.addfile(member, io.BytesIO(content) if file else None)
            unit = member.name.rpartition("/")[2]
            if "systemd/system/" in member.name and file and unit.endswith(".service"):
                for target in _WANTED_BY.findall(content.decode()):
                    wants = f"etc/systemd/system/{target.strip()}.wants/{unit}"
                    made.symlink(wants, f"/{member.name}")
    return made.bytes()


def status(names: Sequence[str]) -> str:
    """dpkg's database of installed packages."""
    stanzas = []
    for name in names:
        path = fetched((name,))[name]
        text = subprocess.run(["dpkg-deb", "-f", path], check=True, capture_output=True, text=True)
        head, _, rest = text.stdout.partition("\n")
        stanzas.append(f"{head}\nStatus: install ok installed\n{rest}")
    return "\n".join(stanzas)
