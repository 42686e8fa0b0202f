"""Keys by name and text on a US keyboard, as QEMU's codes (`QKeyCode`).  Pure.

A guest sees scan codes, as of a keyboard: what they mean is its own layout's affair.
"""

from __future__ import annotations

from proa.errors import Invalid

Chord = tuple[str, ...]
SHIFT = "shift"
MODIFIERS = {
    "ctrl": "ctrl", "control": "ctrl", "alt": "alt", "altgr": "alt_r", "shift": SHIFT,
    "meta": "meta_l", "super": "meta_l", "win": "meta_l",
}  # fmt: skip
NAMED = {
    "enter": "ret", "return": "ret", "ret": "ret", "esc": "esc", "escape": "esc", "tab": "tab",
    "space": "spc", "backspace": "backspace", "delete": "delete", "del": "delete",
    "insert": "insert", "home": "home", "end": "end", "pageup": "pgup", "pagedown": "pgdn",
    "up": "up", "down": "down", "left": "left", "right": "right", "menu": "menu",
    "capslock": "caps_lock", "numlock": "num_lock", "scrolllock": "scroll_lock",
    "print": "print", "sysrq": "sysrq", "pause": "pause",
    **{f"f{number}": f"f{number}" for number in range(1, 13)},
}  # fmt: skip
PLAIN = {
    " ": "spc", "\n": "ret", "\t": "tab", "\b": "backspace", "\x1b": "esc", "-": "minus",
    "=": "equal", "[": "bracket_left", "]": "bracket_right", ";": "semicolon", "'": "apostrophe",
    "`": "grave_accent", "\\": "backslash", ",": "comma", ".": "dot", "/": "slash",
    **{letter: letter for letter in "abcdefghijklmnopqrstuvwxyz0123456789"},
}  # fmt: skip
SHIFTED = dict(zip('!@#$%^&*()_+{}|:"~<>?', "1234567890-=[]\\;'`,./", strict=True)) | {
    letter.upper(): letter for letter in "abcdefghijklmnopqrstuvwxyz"
}
CHORDS_MAXIMUM = 10_000


def chords(words: tuple[str, ...], *, text: bool = False) -> tuple[Chord, ...]:
    """The keys to press together, one chord after another.

    A word is the name of a key, names joined by `-`, or text; with `text` always the latter.
    Raises Invalid for a character no key of a US keyboard makes.
    """
    found: list[Chord] = []
    for word in words:
        chord = None if text else _chord(word)
        found += (chord,) if chord else (_typed(letter) for letter in word)
    if len(found) > CHORDS_MAXIMUM:
        raise Invalid(f"'{len(found)}' keys are too many at once", hint=f"up to {CHORDS_MAXIMUM}")
    return tuple(found)


def _chord(word: str) -> Chord | None:
    """`ctrl-alt-delete`, `shift--`, `f2`; None for what is text."""
    *held, last = word.split("-")
    if word.endswith("--"):
        held, last = word[:-2].split("-"), "-"
    if not all(name.lower() in MODIFIERS for name in held):
        return None
    lowered = last.lower()
    key = NAMED.get(lowered) or (MODIFIERS.get(lowered) if not held else None)
    if key is None and held and len(last) == 1:
        key = PLAIN.get(lowered) or PLAIN.get(SHIFTED.get(last, ""))
    if key is None:
        if held:
            raise Invalid(f"unknown key '{last}' in '{word}'", hint=f"like {', '.join(NAMED)}")
        return None
    return (*dict.fromkeys(MODIFIERS[name.lower()] for name in held), key)


def _typed(letter: str) -> Chord:
    if letter in PLAIN:
        return (PLAIN[letter],)
    if letter in SHIFTED:
        return (SHIFT, PLAIN[SHIFTED[letter]])
    raise Invalid(
        f"no key of a US keyboard types '{letter!a}'".replace("''", "'"),
        hint="only ASCII can be typed",
    )
