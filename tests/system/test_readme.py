"""Every command the README shows is run, and says what it is shown to say but for numbers."""

from __future__ import annotations

import os
import pty
import re
import select
import time

import pytest

from tests.support.engine import EngineProcess
from tests.support.paths import ROOT

DOCUMENTS = ("README.md",)
LIMIT_SECONDS = 300
ONCE = r" \.\.\. [\d.]+ s$"  # what is said only where nothing was made before


def commands(document: str) -> dict[str, list[str]]:
    """What stands after a prompt, without its comment, and the lines shown below it."""
    text = (ROOT / document).read_text()
    found: dict[str, list[str]] = {}
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        shown: list[str] = []
        for line in filter(None, block.splitlines()):
            if line.startswith("$ "):
                shown = found.setdefault(line[2:].split("  #")[0].strip(), [])
            else:
                shown.append(line)
    return found


def outline(line: str) -> tuple[str, ...]:
    """What of a line is the same on every machine: a row's title, or all words without digits."""
    cells = [cell for cell in re.split(r"\s{2,}|\t", line.strip()) if cell]
    numbered = [bool(re.search(r"\d", cell)) for cell in cells]
    if not any(numbered[:1]):
        return tuple(cells[:1])
    first = re.sub(r"\S*\d\S*", "#", cells[0])
    return (first, *(cell for cell, has in zip(cells, numbered, strict=True) if not has))


def missing(expected: list[str], shown: str) -> list[str]:
    """Lines the README shows and the command does not, but for those of a first time."""
    real = {outline(line) for line in shown.splitlines()}
    return [line for line in expected if outline(line) not in real and not re.search(ONCE, line)]


def at_a_terminal(command: str, environment: dict[str, str]) -> tuple[int, str]:
    """Run as a person would, leaving any shell by `exit`; exit code and what was shown."""
    child, master = pty.fork()
    if child == 0:
        os.chdir(ROOT)
        os.execvpe("sh", ["sh", "-c", command], environment)
    shown, left, end = "", False, time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        if not select.select([master], [], [], 0.5)[0]:
            continue
        try:
            shown += os.read(master, 4096).decode(errors="replace")
        except OSError:
            break
        if not left and shown.rstrip(" ").endswith(("#", "$")):
            left = bool(os.write(master, b"exit\r"))
    else:
        os.kill(child, 9)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(master)
    return code, shown


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command(session_engine: EngineProcess, document: str) -> None:
    environment = session_engine.variables()
    environment["PATH"] = f"{ROOT / 'bin'}:{environment['PATH']}"
    environment["MAKEFLAGS"] = ""
    listed = commands(document)
    assert "make demo" in listed, "the README's first command"
    for command in sorted(listed, key=lambda line: line != "make demo"):
        real = command.replace("/run/proa/proa.sock", str(session_engine.socket))
        code, shown = at_a_terminal(real, environment)
        assert code == 0, f"{command}\n{shown[-3000:]}"
        assert not missing(listed[command], shown), f"{command}\n{shown[-3000:]}"
    session_engine.remove_all()
