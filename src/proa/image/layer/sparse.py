"""Maps of sparse files in tar archives: where the stored pieces belong.

Four encodings exist: old GNU (`S` headers) and GNU's pax versions 0.0, 0.1 and 1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from proa.errors import Corrupt

Segment = tuple[int, int]  # offset, length
MAXIMUM_SEGMENTS = 1 << 18
_BLOCK = 512


def old_gnu(header: bytes, next_block: Callable[[], bytes]) -> tuple[int, list[Segment]]:
    """Four pieces in the header, 21 in each extension block that follows."""
    size = _field(header[483:495])
    segments = _pieces(header[386:482])
    more = header[482]
    while more:
        block = next_block()
        segments += _pieces(block[:504])
        more = block[504]
        _limit(len(segments))
    return size, segments


def _pieces(table: bytes) -> list[Segment]:
    result = []
    for at in range(0, len(table), 24):
        if not table[at]:
            break
        result.append((_field(table[at : at + 12]), _field(table[at + 12 : at + 24])))
    return result


def _field(data: bytes) -> int:
    if data[0] & 0x80:
        return int.from_bytes(data[1:], "big")
    text = data.split(b"\0", 1)[0].strip()
    if text.strip(b"01234567"):
        raise Corrupt("the map of a sparse file is malformed")
    return int(text or b"0", 8)


def in_records(records: dict[bytes, bytes]) -> tuple[int, list[Segment]]:
    """pax 0.0 and 0.1: a list of numbers in the header."""
    numbers = [_decimal(part) for part in records.get(b"GNU.sparse.map", b"").split(b",") if part]
    size = records.get(b"GNU.sparse.size") or records.get(b"GNU.sparse.realsize", b"")
    return _decimal(size), _pairs(numbers)


def in_data(
    records: dict[bytes, bytes], next_block: Callable[[], bytes]
) -> tuple[int, list[Segment]]:
    """pax 1.0: a list of numbers, one a line, in front of the data, padded to a block."""
    lines = _lines(next_block)
    count = _decimal(next(lines))
    _limit(count)
    numbers = [_decimal(next(lines)) for _ in range(2 * count)]
    return _decimal(records.get(b"GNU.sparse.realsize", b"")), _pairs(numbers)


def _lines(next_block: Callable[[], bytes]) -> Iterator[bytes]:
    rest = b""
    while True:
        *lines, rest = (rest + next_block()).split(b"\n")
        yield from lines
        if len(rest) > 20:
            raise Corrupt("the map of a sparse file is malformed")


def _decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise Corrupt("the map of a sparse file is malformed")
    return int(text)


def _pairs(numbers: Sequence[int]) -> list[Segment]:
    if len(numbers) % 2:
        raise Corrupt("the map of a sparse file is malformed")
    _limit(len(numbers) // 2)
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _limit(count: int) -> None:
    if count > MAXIMUM_SEGMENTS:
        raise Corrupt(f"a sparse file has more than '{MAXIMUM_SEGMENTS}' pieces")


def check(size: int, segments: Sequence[Segment], stored: int) -> None:
    """Pieces in order, inside the file, and exactly as long together as what is stored."""
    end = total = 0
    for offset, length in segments:
        if offset < end:
            raise Corrupt("the pieces of a sparse file overlap")
        end = offset + length
        total += length
    if end > size or total != stored:
        raise Corrupt("the map of a sparse file does not fit its data")
