"""Loads side by side: an archive of 1 GB and ten layers, taken in and unpacked."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measure import Budget, Contestant, Row
from benchmarks.peers import program, run
from benchmarks.pulls import contestant, layout, quiet_removal, quietly
from benchmarks.rows import Field
from tests.support import dockerd

KEYS = frozenset({"load"})
NAME = "bench/load:1"
COPY = ["skopeo", "--insecure-policy", "copy", "-q"]


@contextlib.contextmanager
def rows(field_: Field, folder: Path) -> Iterator[list[Row]]:
    """The row, with every peer that can run here."""
    archive = folder / "archive.tar"
    run([*COPY, f"oci:{layout(folder / 'layout')}", f"docker-archive:{archive}:{NAME}"])
    shutil.rmtree(folder / "layout")
    words = ["load", "-q", "-i", str(archive)]
    with contextlib.ExitStack() as stack:
        ours, proa = field_.engine.variables(), str(field_.proa)
        found = [
            contestant("proa load", [[proa, *words]], lambda: quiet_removal(proa, NAME, ours),
                       **ours)
        ]  # fmt: skip
        if dockerd.available():
            judge = stack.enter_context(dockerd.dockerd())
            client = ["docker", "--config", str(judge.config), "-H", f"unix://{judge.socket}"]
            remove = quietly([*client, "rmi", "-f", NAME])
            found.append(contestant("docker load", [[*client, *words]], remove))
        store = [program("podman"), f"--root={folder}/podman", f"--runroot={folder}/podman-run"]
        store.append("--storage-driver=overlay")
        remove = quietly([*store, "rmi", "-af"])
        found.append(contestant("podman load", [[*store, *words]], remove))
        found.append(_skopeo(folder / "skopeo", archive))
        row = Row("load", "1 GB in ten layers, docker save's archive, loaded and unpacked", found,
                  most_rounds=5)  # fmt: skip
        row.budgets.append(Budget("proa load", tuple(each.name for each in found[1:]), 1.0))
        yield [row]


def _skopeo(folder: Path, archive: Path) -> Contestant:
    place, tree = folder / "layout", folder / "tree"
    unpack = [program("umoci"), "raw", "unpack", "--image", f"{place}:a", str(tree)]

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    copy = [*COPY, f"docker-archive:{archive}", f"oci:{place}:a"]
    return contestant("skopeo copy, umoci unpack", [copy, unpack], clear)
