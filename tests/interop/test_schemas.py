"""Everything an engine keeps of images is what the image specification's own schemas allow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need
from tests.support import schemas
from tests.support.engine import EngineProcess, engine
from tests.support.images import busy_image, busy_layer


@pytest.fixture
def fresh() -> Iterator[EngineProcess]:
    """An engine whose store has nothing that others wrote."""
    with engine() as running:
        running.api.load(busy_image())
        yield running


def test_a_store_of_every_kind_of_image(fresh: EngineProcess, tmp_path: Path) -> None:
    """Loaded, imported, committed, built, with a bill of materials."""
    need(schemas.available(), "schemas", "tools/newer.sh was not run here")
    tree = tmp_path / "tree.tar"
    tree.write_bytes(busy_layer().bytes())
    context = tmp_path / "context"
    context.mkdir()
    (context / "Containerfile").write_text(
        "FROM busy\nRUN echo built > /built\nENV A=1\nLABEL a=b\nEXPOSE 80\nVOLUME /v\n"
        'HEALTHCHECK --interval=5s CMD true\nONBUILD RUN true\nCMD ["sh"]\n'
    )
    proa = fresh.proa
    for words in (
        ("import", str(tree), "schemas-import"),
        ("create", "--name", "schemas", "busy", "true"),
        ("commit", "schemas", "schemas-commit"),
        ("rm", "schemas"),
        ("build", "--network=none", "-t", "schemas-build", str(context)),
        ("image", "sbom", "--attach", "schemas-build"),
    ):
        done = proa(*words)
        assert done.returncode == 0, done.stderr
    assert schemas.layout_faults(fresh.root / "images") == []


def test_a_saved_layout(session_engine: EngineProcess, tmp_path: Path) -> None:
    """What `save` writes for others."""
    need(schemas.available(), "schemas", "tools/newer.sh was not run here")
    to = tmp_path / "layout"
    done = session_engine.proa("save", "--format", "oci-dir", "-o", str(to), "busy", "probe")
    assert done.returncode == 0, done.stderr
    assert schemas.layout_faults(to) == []
