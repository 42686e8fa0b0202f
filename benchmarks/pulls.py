"""Pulls side by side: an image of 1 GB and ten layers from a registry on loopback, unpacked."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Budget, Contestant, Row
from benchmarks.peers import Absent, program, run
from benchmarks.rows import Field
from tests.support import dockerd
from tests.support.registry import registry

KEYS = frozenset({"pull"})
LAYERS = 10
FILES = 2000  # of a layer
FILE_BYTES = 52_000  # on average
NAME = "bench/big:1"


def words() -> bytes:
    """Four MiB that compress to about two fifths, as programs and texts do."""
    chance = random.Random(1)
    known = [chance.randbytes(chance.randint(2, 9)) for _ in range(6000)]
    return b" ".join(chance.choices(known, k=800_000))[: 4 << 20]


def layer(number: int, pool: bytes) -> bytes:
    """A tar of many files."""
    chance = random.Random(number)
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for index in range(FILES):
            size = min(int(chance.expovariate(1 / FILE_BYTES)), 2 << 20)
            start = chance.randrange(len(pool) - size)
            member = tarfile.TarInfo(f"layer-{number}/{index % 50}/file-{index}")
            member.size = size
            tar.addfile(member, io.BytesIO(pool[start : start + size]))
    return made.getvalue()


def layout(folder: Path) -> Path:
    """The image as an OCI layout."""
    blobs = folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        kind = f"application/vnd.oci.image.{kind}"
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def document(kind: str, content: dict[str, Any]) -> dict[str, Any]:
        return put(kind, json.dumps(content).encode())

    pool, layers, ids = words(), [], []
    for number in range(LAYERS):
        plain = layer(number, pool)
        ids.append(f"sha256:{hashlib.sha256(plain).hexdigest()}")
        layers.append(put("layer.v1.tar+gzip", gzip.compress(plain, 3, mtime=0)))
    rootfs = {"type": "layers", "diff_ids": ids}
    about = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    config = document("config.v1+json", about)
    manifest = {"schemaVersion": 2, "config": config, "layers": layers}
    listed = [document("manifest.v1+json", manifest)]
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": listed}))
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return folder


def contestant(
    name: str, pull: list[list[str]], clear: Callable[[], object], **env: str
) -> Contestant:
    """Pulls with these commands after everything was cleared away, and written to the disk."""
    environment = dict(os.environ) | env

    def prepare() -> None:
        clear()
        os.sync()

    def once() -> None:
        for command in pull:
            run(command, env=environment)

    return Contestant(name, once, prepare=prepare)


def quietly(command: list[str]) -> Callable[[], None]:
    """A command that may fail."""

    def work() -> None:
        with contextlib.suppress(Absent):
            run(command)

    return work


@contextlib.contextmanager
def rows(field_: Field, folder: Path) -> Iterator[list[Row]]:
    """The row, with every peer that can run here."""
    with contextlib.ExitStack() as stack:
        hub = stack.enter_context(registry())
        name = hub.push_with_skopeo(f"oci:{layout(folder / 'layout')}", NAME)
        shutil.rmtree(folder / "layout")
        ours = field_.engine.variables()
        proa = str(field_.proa)
        found = [
            contestant("proa pull", [[proa, "pull", "-q", name]],
                       lambda: quiet_removal(proa, name, ours), **ours)
        ]  # fmt: skip
        if dockerd.available():
            judge = stack.enter_context(dockerd.dockerd())
            client = ["docker", "--config", str(judge.config), "-H", f"unix://{judge.socket}"]
            remove = quietly([*client, "rmi", "-f", name])
            found.append(contestant("docker pull", [[*client, "pull", "-q", name]], remove))
        found.append(podman(folder / "podman", name))
        found.append(skopeo(folder / "skopeo", name))
        title = "1 GB in ten layers, loopback registry, pulled and unpacked"
        row = Row("pull", title, found, most_rounds=5)
        peers = tuple(each.name for each in found[1:])
        row.budgets.append(Budget("proa pull", peers, 1.0))
        yield [row]


def quiet_removal(proa: str, name: str, environment: dict[str, str]) -> None:
    """Ours: the image and what its pull kept."""
    with contextlib.suppress(Absent):
        run([proa, "rmi", "-f", name], env=environment)


def podman(folder: Path, name: str) -> Contestant:
    """podman on overlayfs, with a store of its own."""
    words = [program("podman"), f"--root={folder}/root", f"--runroot={folder}/run"]
    words += ["--storage-driver=overlay"]
    remove = quietly([*words, "rmi", "-af"])
    return contestant("podman pull", [[*words, "pull", "-q", "--tls-verify=false", name]], remove)


def skopeo(folder: Path, name: str) -> Contestant:
    """skopeo copies the image to a layout, umoci unpacks that."""
    place, tree = folder / "layout", folder / "tree"
    copy = [program("skopeo"), "--insecure-policy", "copy", "-q", "--src-tls-verify=false"]
    unpack = [program("umoci"), "raw", "unpack", "--image", f"{place}:a", str(tree)]

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    pull = [[*copy, f"docker://{name}", f"oci:{place}:a"], unpack]
    return contestant("skopeo copy, umoci unpack", pull, clear)
