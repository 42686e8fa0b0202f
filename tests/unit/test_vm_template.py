"""Templates, disks and QMP without a machine: files, seals, checksums, answers."""

from __future__ import annotations

import json
import mmap
import os
import socket
from pathlib import Path

import pytest

from proa.errors import Corrupt, IsolationError, Timeout
from proa.isolation.vm import disks, qmp, template

SIZE = 1 << 20


def stored(tmp_path: Path) -> Path:
    """A template directory with a little in its RAM."""
    directory = tmp_path / "0123"
    directory.mkdir()
    memory = os.memfd_create("test")
    os.ftruncate(memory, SIZE)
    os.pwrite(memory, b"hello", 300_000)
    (directory / "state").write_bytes(b"devices")
    template.store(directory, "0123", memory, 77)
    os.close(memory)
    return directory


def test_a_template_comes_back_sealed(tmp_path: Path) -> None:
    loaded = template.load(stored(tmp_path))
    assert os.pread(loaded.memory, 5, 300_000) == b"hello"
    with pytest.raises(PermissionError):
        os.pwrite(loaded.memory, b"x", 0)
    with pytest.raises(PermissionError):
        os.ftruncate(loaded.memory, 2 * SIZE)
    again = os.open(f"/proc/self/fd/{loaded.memory}", os.O_RDWR)
    with pytest.raises(PermissionError):
        mmap.mmap(again, SIZE)
    private = mmap.mmap(again, SIZE, flags=mmap.MAP_PRIVATE)
    private[300_000:300_005] = b"HELLO"
    assert os.pread(loaded.memory, 5, 300_000) == b"hello"
    private.close()
    os.close(again)
    loaded.close()


def test_each_reader_of_the_state_has_its_own_position(tmp_path: Path) -> None:
    loaded = template.load(stored(tmp_path))
    for _ in range(2):
        state = loaded.open_state()
        assert os.read(state, 100) == b"devices"
        os.close(state)
    loaded.close()


def test_the_memory_stays_sparse(tmp_path: Path) -> None:
    assert (stored(tmp_path) / "memory").stat().st_blocks * 512 <= 2 * template.CELL


def test_damage_is_noticed(tmp_path: Path) -> None:
    directory = stored(tmp_path)
    with (directory / "memory").open("r+b") as file:
        file.seek(300_001)
        file.write(b"!")
    with pytest.raises(Corrupt, match="checksums"):
        template.load(directory)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "0123"}', json.dumps({"key": "9"})])
def test_a_damaged_description_is_noticed(tmp_path: Path, content: str) -> None:
    directory = stored(tmp_path)
    (directory / "template.json").write_text(content)
    with pytest.raises(Corrupt):
        template.load(directory)


def test_a_template_that_lacks_a_part_is_corrupt_and_a_missing_one_missing(tmp_path: Path) -> None:
    directory = stored(tmp_path)
    (directory / "state").unlink()
    with pytest.raises(Corrupt):
        template.load(directory)
    with pytest.raises(FileNotFoundError):
        template.load(tmp_path / "none")


# -- disks --------------------------------------------------------------------------------------


def test_a_disk_is_made_of_its_extents(tmp_path: Path) -> None:
    original = tmp_path / "original"
    with original.open("wb") as file:
        file.truncate(10 * SIZE)
        for offset in (0, 4096, 5 * SIZE):
            file.seek(offset)
            file.write(b"x" * 100)
    seed = disks.Seed(10 * SIZE, tuple(disks.extents(original)))
    assert [offset for offset, _ in seed.extents] == [0, 5 * SIZE]
    assert disks.Seed.parse(seed.dump()) == seed
    with pytest.raises(Corrupt):
        disks.Seed.parse(seed.dump()[:20])
    copy = tmp_path / "copy"
    os.close(seed.create(copy))
    assert copy.read_bytes() == original.read_bytes()
    with pytest.raises(Exception, match="File exists"):
        seed.create(copy)


def test_a_formatted_disk_is_small_and_sound(tmp_path: Path) -> None:
    seed = disks.format_seed(tmp_path, 1 << 30)
    assert sum(len(data) for _, data in seed.extents) < 4 * SIZE
    assert not list(tmp_path.iterdir())


# -- qmp ----------------------------------------------------------------------------------------


def test_answers_are_matched_to_their_requests() -> None:
    ours, theirs = socket.socketpair()
    client = qmp.Qmp(ours)
    client.pipeline(("qmp_capabilities", {}), ("cont", {}))
    requests = [json.loads(line) for line in theirs.recv(4096).splitlines()]
    assert [r["execute"] for r in requests] == ["qmp_capabilities", "cont"]
    lines: list[object] = [{"QMP": {}}, {"return": {}, "id": 1}, {"event": "RESUME"}]
    lines += [{"return": n, "id": r["id"]} for n, r in enumerate(requests)]
    theirs.sendall(b'lf a line"}\n' + b"".join(json.dumps(x).encode() + b"\n" for x in lines))
    client.drain()
    client.wait_event("RESUME", 0.1)
    theirs.close()
    with pytest.raises(IsolationError):
        client.execute("stop")
    client.close()


def test_a_refusal_and_a_silence_are_errors() -> None:
    ours, theirs = socket.socketpair()
    client = qmp.Qmp(ours)
    with pytest.raises(Timeout):
        client.execute("stop", timeout_seconds=0.05)
    client.pipeline(("stop", {}))
    last = json.loads(theirs.recv(4096).splitlines()[-1])
    answer = {"error": {"desc": "no"}, "id": last["id"]}
    theirs.sendall(json.dumps(answer).encode() + b"\n")
    with pytest.raises(IsolationError, match="refused: no"):
        client.drain()
    client.close()
    theirs.close()
