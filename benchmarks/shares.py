"""Shared folders side by side: a container's bind mount, a clone's 9p, a boot's virtiofs."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measure import Contestant, Row
from benchmarks.peers import IMAGE
from benchmarks.rows import Field
from tests.support.instances import Instance

KEYS = frozenset({"share-write", "share-read", "share-stat"})
SOURCE = Path(__file__).resolve().parent.parent / "tests" / "support" / "folder.c"
MIB, FILES = 128, 200
WORK = (
    ("share-write", f"{MIB} MiB written and synced", ("write", "/s/large", str(MIB))),
    ("share-read", f"{MIB} MiB read, in the host's cache", ("read", "/s/large")),
    ("share-stat", f"{10 * FILES} times lstat", ("stats", "/s/many", str(FILES))),
)
WAYS = (("container, bind mount", ""), ("vm, 9p", "9p"), ("vm, virtiofs", "virtiofs"))


@contextlib.contextmanager
def rows(field_: Field, folder: Path) -> Iterator[list[Row]]:
    """One instance a way for all rows; each sample is one exec in it."""
    with contextlib.ExitStack() as stack:
        made = [(name, _instance(field_, folder, way, stack)) for name, way in WAYS]
        yield [
            Row(key, title, [Contestant(name, _work(instance, words)) for name, instance in made])
            for key, title, words in WORK
        ]


def _instance(field_: Field, folder: Path, way: str, stack: contextlib.ExitStack) -> Instance:
    share = folder / (way or "bind")
    share.mkdir()
    subprocess.run(["cc", "-O1", "-static", "-o", share / "tool", SOURCE], check=True)
    body = {
        "Image": IMAGE, "Cmd": ["sleep", "100000"],
        "HostConfig": {"Isolation": "vm" if way else "container", "Binds": [f"{share}:/s"]},
        **({"Proa": {"Shares": way}} if way else {}),
    }  # fmt: skip
    api = field_.engine.api
    instance = Instance(api, api.json("POST", "/containers/create", body)["Id"]).start()
    stack.callback(instance.remove)
    instance.exec("/s/tool", "write", "/s/large", str(MIB))
    return instance


def _work(instance: Instance, words: tuple[str, ...]) -> Callable[[], object]:
    def once() -> None:
        done = instance.exec("/s/tool", *words)
        if done.code != 0:
            raise RuntimeError(f"{words} ended with {done.code}: {done.stderr}")

    return once
