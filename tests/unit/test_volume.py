"""Named volumes."""

from __future__ import annotations

from pathlib import Path

import pytest

from proa.errors import Conflict, Invalid, NotFound
from proa.volume.service import Volumes


def test_create_get_list_remove(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    made = volumes.create("data", {"a": "b"})
    assert made.path == tmp_path / "data" / "data"
    assert made.path.is_dir()
    assert Volumes(tmp_path).get("data") == made
    assert volumes.create("data", {"other": "label"}) == made
    assert volumes.path("data") == made.path
    volumes.path("anonymous")
    assert [volume.name for volume in volumes.list()] == ["anonymous", "data"]
    (made.path / "file").write_text("x")
    volumes.remove("data")
    assert [volume.name for volume in volumes.list()] == ["anonymous"]


def test_remove_of_a_missing_or_used_one(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    with pytest.raises(NotFound, match="no such volume: 'x'"):
        volumes.remove("x")
    volumes.remove("x", force=True)
    volumes.create("x")
    with pytest.raises(Conflict, match="in use by 'web'"):
        volumes.remove("x", used_by="web")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-a", ".trash-1", "a\n", "ü", "a" * 256])
def test_names_are_checked(tmp_path: Path, name: str) -> None:
    with pytest.raises(Invalid):
        Volumes(tmp_path).path(name)


def test_broken_facts_do_not_hide_the_content(tmp_path: Path) -> None:
    volumes = Volumes(tmp_path)
    volumes.create("a")
    (tmp_path / "a" / "volume.json").write_text("{")
    assert volumes.get("a").labels == {}


def test_half_made_and_half_removed_ones_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    (tmp_path / ".trash-1" / "data").mkdir(parents=True)
    assert Volumes(tmp_path).list() == []
    assert not (tmp_path / ".trash-1").exists()
    assert Volumes(tmp_path).create("half").path.is_dir()
