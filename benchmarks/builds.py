"""Builds side by side: twenty steps, everything cached and nothing cached."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure import Budget, Contestant, Row
from benchmarks.peers import IMAGE, Absent, program, run
from benchmarks.rows import Field
from tests.support import dockerd
from tests.support.images import busy_image

KEYS = frozenset({"build-cached", "build-new"})
STEPS = 20


def context(folder: Path) -> Path:
    """A context of twenty steps: nine commands, eight copies, three variables."""
    folder.mkdir()
    lines = [f"FROM {IMAGE}"]
    for number in range(STEPS):
        if number % 7 == 6:
            lines.append(f"ENV V{number}={number}")
        elif number % 2:
            (folder / f"file-{number}").write_bytes(os.urandom(64 << 10))
            lines.append(f"COPY file-{number} /files/")
        else:
            lines.append(f"RUN echo {number} > /step-{number}")
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")
    return folder


def buildah(folder: Path, archive: Path) -> list[str]:
    """buildah on a store of its own that has the base image."""
    folder.mkdir()
    command = [
        program("buildah"), f"--root={folder}/root", f"--runroot={folder}/run",
        "--storage-driver=overlay",
    ]  # fmt: skip
    run([*command, "pull", "-q", f"docker-archive:{archive}"])
    return command


@dataclass
class Builders:
    """Command lines that take a context, with their environment; who is absent, and why."""

    commands: dict[str, tuple[list[str], dict[str, str]]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def rows(field_: Field, folder: Path) -> Iterator[list[Row]]:
    """The rows, with every builder that can run here."""
    there = context(folder / "context")
    archive = folder / "base.tar"
    archive.write_bytes(busy_image(IMAGE))
    found = Builders()
    ours = [str(field_.proa), "build", "-q", "--network=none"]
    found.commands["proa build"] = (ours, field_.engine.variables())
    with contextlib.ExitStack() as stack:
        if field_.docker:
            classic = [*field_.docker.client, "build", "-q", "--network=none"]
            without = dict(os.environ) | {"DOCKER_BUILDKIT": "0"}
            found.commands["docker build, classic"] = (classic, without)
        if dockerd.available():
            judge = stack.enter_context(dockerd.dockerd())
            judge.run("load", input=archive.read_bytes())
            client = ["docker", "--config", str(judge.config), "-H", f"unix://{judge.socket}"]
            newest = [*client, "buildx", "build", "-q", "--network=none"]
            found.commands["docker build, BuildKit"] = (newest, dict(os.environ))
        try:
            command = buildah(folder / "buildah", archive)
            flags = ["build", "-q", "--layers", "--isolation=chroot", "--pull-never"]
            found.commands["buildah build"] = ([*command, *flags], dict(os.environ))
        except Absent as why:
            found.absent["buildah build"] = str(why)
        yield [
            row("build-cached", found, there, []),
            row("build-new", found, there, ["--no-cache"]),
        ]


def row(key: str, found: Builders, there: Path, flags: list[str]) -> Row:
    """One comparison: `flags` are added to everybody's command line."""

    def contestant(name: str) -> Contestant:
        argv, environment = found.commands[name]
        line = [*argv, *flags, "-t", "bench-build", str(there)]
        return Contestant(name, lambda: run(line, env=environment))

    title = f"{STEPS} steps, " + ("nothing cached" if flags else "everything cached")
    made = Row(key, title, [contestant(name) for name in found.commands])
    made.absent |= found.absent
    peers = tuple(name for name in found.commands if name != "proa build")
    made.budgets.append(Budget("proa build", peers, 1.2 if flags else 1 / 5))
    return made
