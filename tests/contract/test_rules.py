"""The house rules hold: layers, isolation names, sizes."""

from __future__ import annotations

from pathlib import Path

from tools import layers, sizes


def test_imports_point_downward_and_only_edges_print() -> None:
    assert layers.faults() == []


def test_files_and_functions_fit() -> None:
    assert sizes.examine().faults == []


def test_the_layer_test_notices(tmp_path: Path) -> None:
    """A check that cannot fail proves nothing."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "x.py").write_text("from proa.engine import Engine\nprint(Engine)\n")
    (tmp_path / "image").mkdir()
    (tmp_path / "image" / "x.py").write_text("import proa.network.y\n")
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "x.py").write_text("def f(k):\n    return k == 'vm'\n")
    assert len(layers.faults(tmp_path)) == 4
