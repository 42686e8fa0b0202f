"""A monitor and an engine's connection to it; a place to run plans in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.box import Box
from tests.native.monitor import Connection, Monitor

# The leak check traces its process, which a monitor does not permit.
os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor() as running:
        yield running


@pytest.fixture
def engine(monitor: Monitor) -> Connection:
    return monitor.connect()


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.close()
