"""Compressed streams: every way of unfolding gives the same, refuses the same, and stays small."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.errors import Corrupt, Unsupported
from proa.host import libraries
from proa.image.layer import codecs
from proa.image.layer.stream import Bounds, decompressed
from tests.conftest import need

zstandard = libraries.need("zstandard", "this test")
TEXT = bytes(random.Random(1).choices(b"abcdefgh \n", k=300_000))
LIMITS = Bounds(slack_bytes=1 << 20, ratio=50)


def zstd(data: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, write_checksum=True)
    return bytes(zstandard.ZstdCompressor(compression_params=parameters).compress(data))


def zstd_streamed(data: bytes) -> bytes:
    """Without a content size, many blocks, no checksum."""
    made = zstandard.ZstdCompressor(level=1).compressobj()
    return b"".join(made.compress(data[at : at + 999]) for at in range(0, len(data), 999)) + bytes(
        made.flush()
    )


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress, "zstd": zstd, "zstd-streamed": zstd_streamed,
}  # fmt: skip


@pytest.fixture(params=["library", "without"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """With the libraries made for speed, and on a host that has none."""
    if request.param == "library":
        need(libraries.find("isal"), "isal", "'isal' is not installed")
    else:
        need(shutil.which("zstd"), "zstd", "'zstd' is not installed")
        monkeypatch.setattr(libraries, "find", lambda name: None)
    codecs._igzip.cache_clear()
    yield request.param
    codecs._igzip.cache_clear()


def unfold(data: bytes, bounds: Bounds = LIMITS, size: int = 10_000) -> bytes:
    result = b""
    with decompressed(io.BytesIO(data), bounds) as plain:
        while piece := plain.read(size):
            assert len(piece) <= size
            result += piece
    return result


@pytest.mark.parametrize("kind", PACK)
def test_whole_and_in_several_members(way: str, kind: str) -> None:
    pack = PACK[kind]
    assert unfold(pack(TEXT)) == TEXT
    assert unfold(pack(TEXT) + pack(b"") + pack(b"end")) == TEXT + b"end"
    assert unfold(pack(b"")) == b""


@pytest.mark.parametrize("kind", PACK)
def test_cut_anywhere_is_said(way: str, kind: str) -> None:
    whole = PACK[kind](TEXT[:2000])
    places = range(6, len(whole)) if way == "library" else (6, 30, len(whole) - 5, len(whole) - 1)
    for end in places:
        with pytest.raises(Corrupt):
            unfold(whole[:end])


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_changed_byte_is_said(way: str, kind: str) -> None:
    whole = PACK[kind](TEXT[:2000])
    for at in (len(whole) // 2, len(whole) - 2):
        broken = bytearray(whole)
        broken[at] ^= 0x55
        with pytest.raises(Corrupt):
            unfold(bytes(broken))


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_stopped_in_little_memory(way: str, kind: str) -> None:
    bomb = PACK[kind](bytes(64 << 20))
    tracemalloc.start()
    try:
        with (
            pytest.raises(Corrupt, match="unfolds"),
            decompressed(io.BytesIO(bomb), LIMITS) as plain,
        ):
            while plain.read(1 << 16):
                pass
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_frames_that_are_skipped(way: str) -> None:
    note = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    assert unfold(note + zstd(TEXT) + note) == TEXT
    with pytest.raises(Corrupt):
        unfold(note + zstd(TEXT) + note[:-1])


def test_what_follows_is_no_frame(way: str) -> None:
    with pytest.raises(Corrupt):
        unfold(zstd(TEXT) + b"more")


def test_a_window_larger_than_the_host_should_give(way: str) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, write_content_size=False)
    packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(Corrupt):
        unfold(packed.compress(TEXT) + packed.flush())


def test_no_way_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find", lambda name: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unsupported, match="zstd"):
        unfold(zstd(TEXT))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=5), st.integers(1, 4000), st.data())
def test_any_frames_any_reads(parts: list[bytes], size: int, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(PACK)))
    packed = b"".join(map(PACK[kind], parts))
    assert unfold(packed, size=size) == b"".join(parts)
