"""Fuzz the parser of image names: what it takes it writes so that it reads the same again."""

from __future__ import annotations

from proa.image import reference
from tests.fuzz.harness import Target, main

SEEDS = (
    b"debian", b"debian:12", b"localhost:5000/a/b_c--d.e:v1", b"[::1]:5000/x@sha256:" + b"a" * 64,
    b"registry.example/team/app:1.2@sha256:" + b"0" * 64, b"Upper.example/x",
)  # fmt: skip
WORDS = (b":", b"@", b"/", b"..", b"sha256:", b"f" * 64, b"index.docker.io/", b"library/", b"[::]")


def check(data: bytes) -> object:
    """Round trip of a name and of its familiar form."""
    parsed = reference.parse(data.decode("utf-8", "surrogateescape"))
    assert reference.parse(str(parsed)) == parsed
    assert reference.parse(parsed.familiar) == parsed
    assert ".." not in parsed.path and not parsed.path.startswith("/")
    assert not any(char.isspace() for char in str(parsed))
    return bool(parsed.tag), bool(parsed.digest), parsed.registry == "docker.io"


TARGET = Target("reference", check, SEEDS, WORDS)

if __name__ == "__main__":
    main(TARGET)
