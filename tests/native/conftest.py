"""A monitor and an engine's connection to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.native.monitor import Connection, Monitor


@pytest.fixture
def monitor() -> Iterator[Monitor]:
    with Monitor() as running:
        yield running


@pytest.fixture
def engine(monitor: Monitor) -> Connection:
    return monitor.connect()
