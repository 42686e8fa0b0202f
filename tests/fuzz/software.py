"""Fuzz what reads software out of an image: packages of Debian, databases, documents, programs."""

from __future__ import annotations

import contextlib
import io
import tarfile
import tempfile
from pathlib import Path

from proa.image.layer import tar
from proa.image.packages import archive
from proa.image.sbom import databases, languages
from tests.fuzz.harness import Target, main


def _package() -> bytes:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as file:
        member = tarfile.TarInfo("./control")
        member.size = 11
        file.addfile(member, io.BytesIO(b"Package: a\n"))
    data = b"!<arch>\n"
    for name in (b"control.tar.gz", b"data.tar.gz"):
        content = inner.getvalue()
        data += b"%-16s%-32s%-10d`\n" % (name, b"0", len(content)) + content
        data += b"\n" * (len(content) % 2)
    return data


SEEDS = (
    _package(),
    b"Package: a\nStatus: install ok installed\nVersion: 1:2\n more\n\nPackage: b\nSource: c (1)\n",
    b"P:musl\nV:1\nA:x86_64\nL:MIT\n\nP:b\n",
    b'Name: Foo\nVersion: 1\n\n{"name": "@a/b", "version": "1", "license": "MIT"}',
    b"path\tx\nmod\ta\tv1\th1:\ndep\tb\tv2\n=>\tc\tv3\n",
    b"\xff Go buildinf:\x08\x02".ljust(32, b"\0") + b"\x03go1\x20" + b"s" * 16 + b"e" * 16,
)
WORDS = (
    b"Package: ",
    b"\n\n",
    b"Status: ",
    b"\t",
    b"=>\t",
    b"`\n",
    b"!<arch>\n",
    b"data.tar",
    b"{",
)


def check(data: bytes) -> object:
    """Every reader takes it; what they find is short and printable."""
    found = [*languages.python(data), *languages.npm(data)]
    found += languages.go(data.decode("utf-8", "replace"))
    fields = sum(len(stanza) for stanza in databases.stanzas(data))
    with contextlib.suppress(ValueError):
        languages.inline_text(data)
    for item in found:
        assert item.name and len(item.name) <= 500 and item.name.isprintable()
        assert item.purl({}).isascii()
    return len(found), min(fields, 20), _unpacked(data)


def _unpacked(data: bytes) -> object:
    if not data.startswith(b"!<arch>\n"):
        return None
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        text = archive.control(path)
        with archive.data(path) as plain:
            return len(text), sum(1 for _ in tar.Reader(plain))


TARGET = Target("software", check, SEEDS, WORDS)

if __name__ == "__main__":
    main(TARGET)
