"""Docker's multiplexed output: frames of one stream byte, three zeros, a big-endian length."""

from __future__ import annotations

STDIN, STDOUT, STDERR = 0, 1, 2
HEADER_BYTES = 8
RAW = "application/vnd.docker.raw-stream"


class Demultiplexer:
    """Cuts a byte stream into (stream, bytes) pieces; holds back part of a header at most."""

    def __init__(self) -> None:
        self._header = b""
        self._stream = STDOUT
        self._left = 0

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The pieces that became known with `data`, in order."""
        pieces: list[tuple[int, bytes]] = []
        position = 0
        while position < len(data):
            if self._left == 0:
                position = self._read_header(data, position)
                continue
            piece = data[position : position + self._left]
            pieces.append((self._stream, piece))
            position += len(piece)
            self._left -= len(piece)
        return pieces

    def _read_header(self, data: bytes, position: int) -> int:
        needed = HEADER_BYTES - len(self._header)
        self._header += data[position : position + needed]
        if len(self._header) == HEADER_BYTES:
            self._stream = self._header[0]
            self._left = int.from_bytes(self._header[4:8], "big")
            self._header = b""
        return position + needed


class Plain:
    """The same for a terminal's stream, which is not multiplexed."""

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """All of it is standard output."""
        return [(STDOUT, data)] if data else []
