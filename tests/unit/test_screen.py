"""Keys by name and text; pictures of an old QEMU."""

from __future__ import annotations

import subprocess

import pytest

from proa.errors import Corrupt, Invalid
from proa.isolation.vm.keyboard import chords
from proa.isolation.vm.picture import from_ppm, size


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ctrl-alt-delete", (("ctrl", "alt", "delete"),)),
        ("Ctrl-Alt-F2", (("ctrl", "alt", "f2"),)),
        ("f12", (("f12",),)),
        ("super", (("meta_l",),)),
        ("ctrl-c", (("ctrl", "c"),)),
        ("ctrl--", (("ctrl", "minus"),)),
        ("shift-?", (("shift", "slash"),)),
        ("a-b", (("a",), ("minus",), ("b",))),
        ("Hi\n", (("shift", "h"), ("i",), ("ret",))),
        ("", ()),
    ],
)
def test_words_become_keys(word: str, expected: tuple[tuple[str, ...], ...]) -> None:
    assert chords((word,)) == expected


def test_text_is_text_when_it_is_said_so() -> None:
    assert chords(("up",), text=True) == (("u",), ("p",))
    assert chords(("up",)) == (("up",),)


def test_every_printable_character_of_ascii_can_be_typed() -> None:
    text = "".join(map(chr, range(0x20, 0x7F)))
    found = chords((text,), text=True)
    assert len(set(found)) == len(found) == 95


@pytest.mark.parametrize("word", ["é", "ctrl-é", "ctrl-nosuch", "\x00", "x" * 10_001])
def test_what_cannot_be_typed(word: str) -> None:
    with pytest.raises(Invalid):
        chords((word,))


def test_a_ppm_becomes_a_png_another_program_reads() -> None:
    ppm = b"P6\n3 2\n255\n" + bytes(range(18))
    png = from_ppm(ppm)
    assert size(png) == (3, 2)
    try:
        read = subprocess.run(["pngtopnm"], input=png, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.fail("'netpbm' is not installed")
    assert read == ppm


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"P6",
        b"P5\n1 1\n255\n\0",
        b"P6\n2 1\n255\n\0\0\0",
        b"P6\n0 0\n255\n",
        b"P6\n1 1\n65535\n",
    ],
)
def test_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(Corrupt):
        from_ppm(data)
    with pytest.raises(Corrupt):
        size(data)
