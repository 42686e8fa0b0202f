"""What `system df` and `prune` say is what `du` finds."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support.engine import EngineProcess, engine
from tests.support.images import Layer, archive, busy_layer

SLACK = 200_000  # bytes of what is no image's: the index, empty directories


@pytest.fixture
def own() -> Iterator[EngineProcess]:
    """An engine of its own, with two images that share a layer."""
    need(os.geteuid() == 0, "root", "the engine's tests need root")
    shared = random_file("shared", 3_000_000)
    with engine() as running:
        running.api.load(archive("one", shared, random_file("one", 1_000_000)))
        running.api.load(archive("two", shared, random_file("two", 2_000_000)))
        yield running


def random_file(name: str, size: int) -> bytes:
    layer = Layer()
    layer.file(name, random.Random(name).randbytes(size))
    return layer.bytes()


def du(path: Path) -> int:
    done = subprocess.run(["du", "-sB1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_df_and_prune_tell_the_truth(own: EngineProcess) -> None:
    store = own.root / "images"
    usage = own.api.json("GET", "/system/df")
    assert usage["LayersSize"] == pytest.approx(du(store), abs=SLACK)
    one, two = sorted(usage["Images"], key=lambda image: image["Size"])
    assert one["SharedSize"] == two["SharedSize"] == pytest.approx(6_000_000, rel=0.02)
    assert one["UniqueSize"] == pytest.approx(2_000_000, rel=0.02)
    assert two["UniqueSize"] == pytest.approx(4_000_000, rel=0.02)
    before = du(store)
    assert own.proa("rmi", "one").returncode == 0
    assert before - du(store) == pytest.approx(one["UniqueSize"], abs=SLACK)
    before = du(store)
    pruned = own.api.json("POST", "/images/prune")
    assert pruned == {"ImagesDeleted": None, "SpaceReclaimed": 0}
    done = own.proa("image", "prune", "-a")
    said = done.stdout.decode()
    assert "deleted: " + two["Id"] in said
    assert before - du(store) == pytest.approx(two["Size"], abs=SLACK)
    assert "Total reclaimed space: 10" in said
    assert du(store) < SLACK


def test_df_in_words(own: EngineProcess) -> None:
    lines = own.proa("system", "df").stdout.decode().splitlines()
    assert lines[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    kind, count, active, size, free, share = lines[1].split()
    assert (kind, count, active, share) == ("Images", "2", "0", "(100%)")
    assert size == free and size.startswith("12") and size.endswith("MB")
    verbose = own.proa("df", "-v").stdout.decode()
    assert "UNIQUE SIZE" in verbose and "one" in verbose


def test_what_is_used_stays(own: EngineProcess) -> None:
    own.api.load(archive("busy", busy_layer().bytes()))
    assert own.proa("create", "--name", "user", "busy", "true").returncode == 0
    done = own.proa("image", "prune", "--all")
    assert done.stdout.count(b"deleted") == 2
    listed = own.proa("images", "--format", "{{.Repository}}").stdout.split()
    assert listed == [b"busy"]
    assert own.proa("rm", "user").returncode == 0


def test_everything_unneeded_at_once(own: EngineProcess) -> None:
    own.api.load(archive("busy", busy_layer().bytes()))
    assert own.proa("run", "--name", "ended", "busy", "true").returncode == 0
    said = own.proa("system", "prune", "--all").stdout.decode().splitlines()
    assert said[:3] == ["1 instance removed", "3 images removed", "0 cached steps removed"]
    assert said[3].startswith("Total reclaimed space: ")
    assert du(own.root / "images") < SLACK
    assert [own.api.json("GET", path) for path in ("/images/json?shared-size=1",)] == [[]]
