"""Fuzz the reader of declarations: an image of packages is described, or the mistake is told."""

from __future__ import annotations

from proa.image.packages import reader
from tests.fuzz.harness import Target, main

SEEDS = (
    b'distribution = "debian"\nrelease = "bookworm"\npackages = ["nginx=1.*"]\nslim = true\n'
    b'date = 2024-01-01\n[[files]]\npath = "/a"\ncontent = "b"\nmode = "0644"\nowner = "a:0"\n',
    b'distribution = "fedora"\nrelease = "40"\npackages = ["bash"]\n[[repositories]]\n'
    b'url = "https://x/y"\nkey = "k"\n[[users]]\nname = "a"\nuid = 1\n[run]\nports = ["80/tcp"]\n',
)
WORDS = (
    b"[[files]]\n", b"[[users]]\n", b"[run]\n", b"= ", b'"', b"[", b"]", b"../", b"\\u0000",
    b"true", b"0o644", b"1979-05-27", b"file:/",
    b"'''", b"environment", b"exclude", b"uid", b"-o", b"{",
)  # fmt: skip


def check(data: bytes) -> object:
    """What was declared; no path leads out, no name is an option."""
    spec = reader.parse(data, "fuzzed")
    for file in spec.files:
        assert file.path.startswith("/") and ".." not in file.path.split("/")
        assert not file.source.startswith(("/", ".."))
        assert 0 <= file.mode <= 0o7777
    for name in spec.packages + spec.exclude:
        assert not name.startswith("-") and not any(letter.isspace() for letter in name)
    for user in spec.users:
        assert not set(":\n\0") & set(user.name + user.home + user.shell)
    for repository in spec.repositories:
        assert not any(letter.isspace() for letter in repository.url + repository.suite)
        assert "]" not in repository.url
    return spec.format, len(spec.files), len(spec.users), spec.epoch_seconds is None


TARGET = Target("declaration", check, SEEDS, WORDS)

if __name__ == "__main__":
    main(TARGET)
