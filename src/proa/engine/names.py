"""Names for instances whose user gave none."""

from __future__ import annotations

import re
import secrets

from proa.errors import Invalid

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
ADJECTIVES = (
    "amber brisk calm clear coral deft eager fair fleet gentle keen light lively lucid merry "
    "nimble patient quick quiet ready silver spry steady sunny swift tidal true warm wide windward"
).split()
BOATS = (
    "aumakua baurua camakau canoe catamaran drua felucca hokulea jukung kora lakana lugger moana "
    "ndrua outrigger pahi paopao paraw pinisi praam proa pukapuka sail tepuke tongiaki vaka vinta "
    "waka wayfarer yawl"
).split()


def generate() -> str:
    """A random name of two words."""
    return f"{secrets.choice(ADJECTIVES)}_{secrets.choice(BOATS)}"


def check(name: str) -> str:
    """The name without its slash.  Raises Invalid."""
    name = name.removeprefix("/")
    if not NAME.fullmatch(name):
        raise Invalid(
            f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return name
