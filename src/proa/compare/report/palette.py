"""The page's colours, light and dark, as CSS variables.  Tests hold them to their contrasts."""

from __future__ import annotations

# Name → (light, dark).  `f0` and on are the forms'; all stand 4.5:1 from `card` and from `ground`.
COLOURS: dict[str, tuple[str, str]] = {
    "ground": ("#f7f7f4", "#121418"),
    "card": ("#ffffff", "#1a1d23"),
    "sunken": ("#efeeea", "#23272f"),
    "line": ("#dfddd7", "#333943"),
    "ink": ("#1b1d21", "#eceae5"),
    "quiet": ("#565b65", "#a9aeb8"),
    "link": ("#0a5c9c", "#7cc4f5"),
    "alarm": ("#a8231b", "#ff9f95"),
    "on-form": ("#ffffff", "#121418"),
    "f0": ("#0069a8", "#5bb8f0"),
    "f1": ("#b54c00", "#f0a04b"),
    "f2": ("#007357", "#3cc79f"),
    "f3": ("#a13d79", "#e491c5"),
    "f4": ("#6a6100", "#d3c654"),
    "f5": ("#555a63", "#b4bac4"),
}
FORMS = tuple(name for name in COLOURS if name[0] == "f" and name[1:].isdigit())


def css() -> str:
    """The variables: light, dark when the system asks for it, either when the reader does."""
    light, dark = _variables(0), _variables(1)
    slots = "".join(f".{name}{{--c:var(--{name})}}" for name in FORMS)
    return (
        f":root{{color-scheme:light;{light}}}"
        f"@media screen and (prefers-color-scheme:dark)"
        f"{{:root:not([data-theme=light]){{color-scheme:dark;{dark}}}}}"
        f"@media screen{{:root[data-theme=dark]{{color-scheme:dark;{dark}}}}}"
        f".plain{{--c:var(--quiet)}}{slots}"
    )


def _variables(theme: int) -> str:
    return "".join(f"--{name}:{both[theme]};" for name, both in COLOURS.items())
