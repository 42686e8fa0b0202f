"""Chains of disk files against QEMU's own tools: what we write they read, and the reverse."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from proa.errors import Corrupt, Unsupported
from proa.isolation.vm import layers, qcow2, view
from proa.isolation.vm.layers import Chain, Layer
from tests.conftest import need

MIB = 1 << 20
SIZE = 3 * (1 << 30) + 7 * 4096


@pytest.fixture(autouse=True)
def qemu_tools() -> None:
    tools = ("qemu-img", "qemu-io")
    need(all(map(shutil.which, tools)), "qemu", "no 'qemu-img' and 'qemu-io'")


def tool(*words: str | Path) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def graph(chain: Chain) -> str:
    """A chain as QEMU's tools take it, nothing being read out of headers."""
    node: dict[str, object] | None = None
    for layer in reversed(chain.layers):
        backed = {"backing": node} if layer.format == "qcow2" else {}
        node = {"driver": layer.format, **backed,
                "file": {"driver": "file", "filename": str(layer.path)}}  # fmt: skip
    return "json:" + json.dumps(node)


def scribble(chain: Chain, seed: int, *, times: int = 40) -> None:
    """Writes, zeros and discards at random places, by a tool that knows nothing of us."""
    dice = random.Random(seed)
    commands: list[str] = []
    for _ in range(times):
        start = dice.randrange(SIZE // 4096 // 8) * 4096 if dice.random() < 0.8 else SIZE - 8 * 4096
        length = min(dice.choice((1, 1, 3, 16, 32, 33, 100)) * 4096, SIZE - start)
        what = dice.choice(
            (f"write -P {dice.randrange(1, 256)}", "write -z", "discard", "write -P 0")
        )
        commands += ["-c", f"{what} {start} {length}"]
    tool("qemu-io", *commands, "-d", "unmap", graph(chain))


def written(directory: Path, seed: int, *, depth: int = 3) -> Chain:
    """A raw disk with overlays of ours, all scribbled on."""
    first = directory / layers.FIRST
    with first.open("wb") as file:
        file.truncate(SIZE)
    chain = layers.load(directory)[layers.FIRST]
    scribble(chain, seed)
    for number in range(depth):
        chain = layers.grow(directory)[layers.FIRST]
        scribble(chain, seed + 100 + number)
    return chain


def same(one: Chain, other: Chain) -> bool:
    done = subprocess.run(
        ("qemu-img", "compare", graph(one), graph(other)), capture_output=True, check=False
    )
    return done.returncode == 0


def overlay(path: Path, below: tuple[Layer, ...] = ()) -> tuple[int, Chain]:
    return qcow2.create(path, SIZE), Chain((Layer(path, "qcow2"), *below))


def sound(path: Path) -> bool:
    found = json.loads(tool("qemu-img", "check", "--output=json", "-f", "qcow2", path))
    return not any(found.get(key) for key in ("corruptions", "leaks", "check-errors"))


def test_an_empty_overlay_is_sound_and_small(tmp_path: Path) -> None:
    path = tmp_path / "1"
    os.close(qcow2.create(path, SIZE))
    told = json.loads(tool("qemu-img", "info", "--output=json", path))
    assert told["virtual-size"] == SIZE
    assert "backing-filename" not in told
    assert told["format-specific"]["data"]["extended-l2"]
    assert path.stat().st_blocks * 512 <= 64 << 10
    assert sound(path)


@pytest.mark.parametrize("seed", range(3))
def test_a_flattened_chain_is_the_same_disk(tmp_path: Path, seed: int) -> None:
    chain = written(tmp_path, seed)
    descriptor, flat = overlay(tmp_path / "flat")
    view.flatten(chain, qcow2.Writer(descriptor))
    os.close(descriptor)
    assert sound(flat.top.path)
    assert same(chain, flat)


@pytest.mark.parametrize("seed", range(3))
def test_a_rebased_chain_is_the_same_disk_over_another_base(tmp_path: Path, seed: int) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
    chain, base = written(ours, seed), written(theirs, seed, depth=1)
    descriptor, moved = overlay(tmp_path / "moved", base.layers)
    view.rebase(chain, base, descriptor)
    os.close(descriptor)
    assert sound(moved.top.path)
    assert same(chain, moved)
    assert not same(chain, base)


def test_what_two_bases_have_in_common_takes_no_room(tmp_path: Path) -> None:
    chain = written(tmp_path, 5)
    descriptor, moved = overlay(tmp_path / "moved", chain.layers)
    view.rebase(chain, chain, descriptor)
    os.close(descriptor)
    assert moved.top.path.stat().st_blocks * 512 <= 64 << 10
    assert same(chain, moved)


@pytest.mark.parametrize("options", ["", "extended_l2=on,cluster_size=64k", "cluster_size=4k"])
@pytest.mark.parametrize("compress", [(), ("-c",)])
def test_others_qcow2_files_are_read(
    tmp_path: Path, options: str, compress: tuple[str, ...]
) -> None:
    chain = written(tmp_path, 7, depth=1)
    path = tmp_path / "theirs.qcow2"
    chosen = ("-o", options) if options else ()
    tool("qemu-img", "convert", *compress, *chosen, "-O", "qcow2", graph(chain), path)
    descriptor, flat = overlay(tmp_path / "flat")
    view.flatten(Chain((layers.base(path, "qcow2"),)), qcow2.Writer(descriptor))
    os.close(descriptor)
    assert same(chain, flat)


def test_formats_that_only_qemu_reads_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs.vmdk"
    tool("qemu-img", "create", "-f", "vmdk", path, "1M")
    descriptor = qcow2.create(tmp_path / "flat", MIB)
    with pytest.raises(Unsupported, match="vmdk"):
        view.flatten(Chain((layers.base(path, "vmdk"),)), qcow2.Writer(descriptor))
    os.close(descriptor)


@pytest.mark.parametrize("format", ["raw", "qcow2", "vmdk", "vdi", "vhdx"])
def test_the_size_of_a_disk_is_known_in_every_format(tmp_path: Path, format: str) -> None:
    path = tmp_path / "disk"
    tool("qemu-img", "create", "-f", format, path, "208M")
    assert layers.virtual_bytes(layers.base(path, format)) == 208 * MIB


def test_an_overlay_that_names_another_file_is_not_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret" * 1000)
    path = tmp_path / layers.DIRECTORY / "1"
    path.parent.mkdir()
    for words in (("-b", str(secret), "-F", "raw"), ("-o", f"data_file={secret}")):
        tool("qemu-img", "create", "-f", "qcow2", *words, path, "1M")
        with pytest.raises(Corrupt):
            layers.open_all(Chain((Layer(path, "qcow2"),)))
        path.unlink()
