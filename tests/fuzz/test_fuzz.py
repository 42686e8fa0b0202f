"""Every fuzz target for a moment, from a fixed seed; hours by hand find more (`harness.py`)."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest

from tests.conftest import need
from tests.fuzz import harness

SECONDS = 1.0
HELPERS = {"canary", "harness", "test_fuzz"}
NAMES = sorted({path.stem for path in Path(__file__).parent.glob("*.py")} - HELPERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_moment_of(name: str) -> None:
    need(os.geteuid() == 0, "root", "unpacking layers needs root")
    target = importlib.import_module(f"tests.fuzz.{name}").TARGET
    assert harness.run(target, SECONDS, seed=1) > 10


def test_the_harness_finds_what_is_wrong() -> None:
    def check(data: bytes) -> object:
        if data.count(b"x") > 20:
            raise KeyError("found")
        return min(data.count(b"x"), 20)

    with pytest.raises(harness.Misbehaved, match="the input is") as raised:
        harness.run(harness.Target("self", check, [b"x"]), 30, seed=1)
    kept = Path(str(raised.value).split("'")[-2])
    assert kept.read_bytes().count(b"x") > 20
    kept.unlink()
