"""Repositories of a declaration that names none: those this host itself uses."""

from __future__ import annotations

import platform
from pathlib import Path

from proa.errors import HostError, Invalid
from proa.host import process
from proa.image.packages.spec import Repository, Spec

_KEYRINGS = Path("/usr/share/keyrings")
_POCKETS = ("", "-updates", "-security")
_FORMAT = "$(REPO_URI) $(RELEASE) $(COMPONENT)"


def host_architecture() -> str:
    """What dpkg calls the architecture of this host."""
    return process.run(["dpkg", "--print-architecture"]).strip()


def repositories(spec: Spec) -> tuple[Repository, ...]:
    """The declaration's repositories, or else the host's for the same distribution.

    Raises Invalid when there are none.
    """
    if spec.repositories:
        return spec.repositories
    system = _os_release()
    here = system.get("VERSION_CODENAME", "")
    found: dict[tuple[str, str], list[str]] = {}
    if system.get("ID") == spec.distribution and here:
        for url, suite, component in _targets():
            if suite in [here + pocket for pocket in _POCKETS]:
                wanted = spec.release + suite.removeprefix(here)
                found.setdefault((url, wanted), []).append(component)
    if not found:
        raise Invalid(
            f"no repository is known for '{spec.distribution} {spec.release}'",
            hint="this host has another distribution: name one with [[repositories]]",
        )
    return tuple(
        Repository(url, suite, tuple(dict.fromkeys(components)))
        for (url, suite), components in found.items()
    )


def keyring(distribution: str) -> Path:
    """The distribution's own keys on this host.  Raises Invalid when there are none."""
    path = _KEYRINGS / f"{distribution}-archive-keyring.gpg"
    if not path.is_file():
        raise Invalid(
            f"no keys are known that sign for '{distribution}'",
            hint=f"give a repository's 'key', or install '{distribution}-archive-keyring'",
        )
    return path


def _targets() -> list[tuple[str, str, str]]:
    try:
        said = process.run(["apt-get", "indextargets", "--format", _FORMAT, "Created-By: Packages"])
    except HostError:
        return []
    rows = [line.split() for line in said.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
