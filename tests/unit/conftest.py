"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proa.api.routes import Router
from proa.api.table import ROUTES
from tests.unit.api_server import Api, served
from tests.unit.fake_engine import FakeEngine


@pytest.fixture
def api() -> Iterator[Api]:
    engine = FakeEngine()
    with served(Router(engine, ROUTES)) as path:  # type: ignore[arg-type]
        yield Api(path, engine)
