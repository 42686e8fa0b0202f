"""What RUN, CMD and ENTRYPOINT execute, heredocs and the shell counted in (BuildKit's rules)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from proa.image.build.containerfile import heredoc_start
from proa.image.build.instructions import Instruction

DEFAULT_SHELL = ("/bin/sh", "-c")
SCRIPT_DIRECTORY = "/dev/pipes"
_TABS = re.compile(r"(?m)^\t+")


@dataclass(frozen=True)
class Command:
    """Arguments to execute; `script` is a file (name and content) that has to be in the read-only
    SCRIPT_DIRECTORY meanwhile, mode 0755, or None."""

    arguments: tuple[str, ...]
    script: tuple[str, str] | None = None


def command(instruction: Instruction, shell: Sequence[str] = ()) -> Command:
    """The command; `shell` is what SHELL said, empty for the default."""
    if instruction.form == "exec":
        return Command(instruction.arguments)
    text = instruction.arguments[0] if instruction.arguments else ""
    if instruction.heredocs:
        first = instruction.heredocs[0]
        if heredoc_start(text):  # nothing but `<<EOF`: its content is the command
            text = _TABS.sub("", first.content) if first.chomp else first.content
            if text.startswith("#!"):
                path = f"{SCRIPT_DIRECTORY}/{first.name}"
                return Command((*(shell or DEFAULT_SHELL), path), (first.name, text))
        else:  # the shell reads the heredocs itself
            for heredoc in instruction.heredocs:
                text += f"\n{heredoc.content}{heredoc.name}"
    return Command((*(shell or DEFAULT_SHELL), text))
