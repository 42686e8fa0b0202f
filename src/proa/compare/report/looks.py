"""How each form looks wherever it is drawn: one colour, one shape, one name.

Colours are chosen to be told apart by people who see fewer of them (Okabe and Ito's set, darkened
or lightened until they stand out from the ground by 3:1); shapes say the same once more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proa.compare.record import Form
from proa.printable import clean


@dataclass(frozen=True)
class Look:
    """A form's: `slot` is its colour's and shape's number, `noun` what sentences call it."""

    key: str
    title: str
    noun: str
    slot: int
    glyph: str
    paint: int  # the terminal's, of 256


GLYPHS = ("●", "◆", "■", "▲", "▼", "★")
PAINTS = (33, 208, 36, 169, 142, 245)
# Forms everybody compares look the same in every report.
_KNOWN = {"container": (0, "container"), "vm": (1, "vm"), "vm-boot": (2, "fully booted vm")}


def looks(forms: Iterable[Form]) -> dict[str, Look]:
    """A look for each form, by key; what has none of its own takes the next that is free."""
    forms = tuple(forms)
    taken = {_KNOWN[form.key][0] for form in forms if form.key in _KNOWN}
    free = iter([slot for slot in range(len(GLYPHS)) if slot not in taken])
    found = {}
    for form in forms:
        title = clean(form.title, 80) or clean(form.key, 80)
        slot, noun = _KNOWN.get(form.key) or (next(free, len(GLYPHS) - 1), _noun(form))
        found[form.key] = Look(form.key, title, noun, slot, GLYPHS[slot], PAINTS[slot])
    return found


def _noun(form: Form) -> str:
    """What a form of no fixed look is called; `container-2` is one of the known, once more."""
    name, _, again = form.key.rpartition("-")
    if name in _KNOWN and again.isdigit():
        return f"{_KNOWN[name][1]} {again}"
    return clean(form.title, 40)
