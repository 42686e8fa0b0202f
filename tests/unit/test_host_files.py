"""Whole writes, locks, opening below a root, and removal of hostile trees."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from proa.errors import HostError, Timeout
from proa.host import files


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "state"
    files.atomic_write(target, b"one")
    files.atomic_write(target, b"two", durable=True, mode=0o644)
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [target]


def test_atomic_write_says_where_it_failed(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"cannot write '.*missing/state'"):
        files.atomic_write(tmp_path / "missing" / "state", b"")


def test_lock_excludes_threads_and_times_out(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with files.Lock(path), pytest.raises(Timeout):
        files.Lock(path, timeout_seconds=0.02).acquire()
    order: list[str] = []

    def work() -> None:
        with files.Lock(path):
            order.append("second")

    with files.Lock(path):
        thread = threading.Thread(target=work)
        thread.start()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_open_in_root_never_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "secret").write_text("inside")
    (root / "etc" / "absolute").symlink_to("/secret")
    (root / "etc" / "upward").symlink_to("../../../secret")
    fd = os.open(root, os.O_PATH)
    try:
        for path in ("/etc/absolute", "etc/upward", "../secret"):
            with open(files.open_in_root(fd, path, os.O_RDONLY), encoding="ascii") as file:
                assert file.read() == "inside"
    finally:
        os.close(fd)


def test_remove_tree_takes_links_not_their_targets(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("precious")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(kept)
    (tree / "a" / "b" / "hard").hardlink_to(kept / "file")
    os.mkfifo(tree / "pipe")
    files.remove_tree(tree)
    assert list(tmp_path.iterdir()) == [kept]
    assert (kept / "file").read_text() == "precious"


def test_remove_tree_of_a_link_a_file_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    files.remove_tree(tmp_path / "link")
    assert (tmp_path / "file").exists()
    files.remove_tree(tmp_path / "file")
    files.remove_tree(tmp_path / "never")
    assert list(tmp_path.iterdir()) == []


def test_remove_tree_does_not_mind_depth_or_modes(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(3000):  # far beyond PATH_MAX and the recursion limit
        os.mkdir("directory", dir_fd=fd)
        below = os.open("directory", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    for number in range(20):
        closed = tree / f"closed{number}"
        (closed / "inner").mkdir(parents=True)
        closed.chmod(0)
    files.remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_trash_of_a_crash_is_emptied(tmp_path: Path) -> None:
    (tmp_path / ".trash-0123" / "deep").mkdir(parents=True)
    (tmp_path / "mine").mkdir()
    files.empty_trash(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_opening_through_dots_while_others_rename(tmp_path: Path) -> None:
    """openat2(2) gives up with EAGAIN when a rename comes between; we do not."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    done = threading.Event()

    def rename() -> None:
        there, here = tmp_path / "x", tmp_path / "y"
        there.mkdir()
        while not done.is_set():
            there.rename(here)
            here.rename(there)

    thread = threading.Thread(target=rename)
    thread.start()
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for _ in range(3000):
            os.close(files.open_in_root(root, "a/../a/b/../b", os.O_RDONLY | os.O_DIRECTORY))
    finally:
        done.set()
        thread.join()
        os.close(root)
