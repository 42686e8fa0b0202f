"""Containerfile lines that change a configuration: `import --change`, `commit --change`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from proa.errors import BuildError, Invalid

if TYPE_CHECKING:
    from proa.image.build.config import Draft

_Config = dict[str, Any]
_FIRST = b"FROM scratch\n"


def apply(config: _Config, lines: Sequence[str]) -> _Config:
    """A copy of `config` with each line applied, first to last.  Raises Invalid."""
    from proa.image.build.config import CHANGES, Draft  # not read at an engine's start

    draft = Draft({"config": config})
    for line in lines:
        word, _, rest = line.strip().partition(" ")
        if word.upper() not in CHANGES:
            raise Invalid(f"unknown change '{line}'", hint=f"known are {', '.join(CHANGES)}")
        if not rest.strip():
            raise Invalid(f"the change '{line}' says nothing")
        if "\0" in rest:
            raise Invalid(f"the change '{word}' contains a zero byte")
        try:
            _apply(draft, line)
        except BuildError as error:
            raise Invalid(f"cannot change '{line}': {error.message}", hint=error.hint) from error
    return draft.config


def _apply(draft: Draft, line: str) -> None:
    from proa.image.build import containerfile, words

    text = _FIRST + line.strip().encode("utf-8", "surrogateescape")
    stages = containerfile.parse(text, "change").stages
    if len(stages) != 1 or len(stages[0].instructions) != 1:
        raise BuildError("it is more than one instruction")
    draft.apply(words.expand(stages[0].instructions[0], draft.environment))
