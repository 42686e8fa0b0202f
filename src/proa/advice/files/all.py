"""All facts of one file system, and of how it is to be started.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proa.advice.facts import Fact
from proa.advice.files import command as commands
from proa.advice.files import programs, services, system
from proa.advice.tree import Tree, first, text
from proa.printable import clean

_INIT_PATHS = (
    "sbin/init",
    "usr/sbin/init",
    "lib/systemd/systemd",
    "usr/lib/systemd/systemd",
    "init",
)
_LINKS = (("systemd", "systemd"), ("busybox", "busybox init"), ("openrc", "openrc"),
          ("runit", "runit"), ("upstart", "upstart"), ("finit", "finit"))  # fmt: skip


@dataclass(frozen=True)
class Start:
    """How it is started: an image's entrypoint, command and PATH; nothing of it for a machine."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    source: str = "no command"


def facts(tree: Tree, host: str, start: Start) -> tuple[Fact, ...]:
    """Everything found; `host` is the host's architecture.  The first fact of a key counts."""
    words = commands.main(start.entrypoint, start.command)
    path = main_program(tree, words, start)
    found = [
        *_started(tree, words, path, start),
        *system.facts(tree),
        *programs.facts(tree, host, path),
        *services.facts(tree),
    ]
    first_of = {fact.key: fact for fact in reversed(found)}
    return tuple(_printable(fact) for fact in found if first_of[fact.key] is fact)


def _printable(fact: Fact) -> Fact:
    """The same; names in a stranger's files may be anything, texts of facts may not."""
    value = fact.value
    if isinstance(value, tuple):
        value = tuple(map(clean, value))
    return Fact(fact.key, clean(value) if isinstance(value, str) else value, clean(fact.source))


def main_program(tree: Tree, words: Sequence[str], start: Start) -> str:
    """The path of the file that is run; empty when it is not there."""
    if not words:
        return first(tree, _INIT_PATHS)
    search = [place for place in start.search if place.startswith("/")]
    return programs.find(tree, words[0], search) or programs.find(tree, words[0])


def _started(tree: Tree, words: Sequence[str], path: str, start: Start) -> Iterator[Fact]:
    source = start.source
    if words:
        yield Fact("run.command", clean(" ".join(words)), source)
        yield Fact("run.one_shot", commands.one_shot(words), source)
        name = commands.name(words[0])
        yield Fact("run.interesting", name if name in programs.FAVOURED else "", source)
    init, found = _init(tree, words, path)
    yield Fact("os.init", init, f"/{found}, {source}" if found else source)
    if init:
        return
    main = commands.name(words[0]) if words else ""
    if main == "init" and tree.look("etc/s6-overlay") is not None:
        main = "s6-overlay"
    script, said = commands.script(start.entrypoint, start.command), source
    if not script and start.entrypoint + start.command:
        file = programs.find(tree, (start.entrypoint + start.command)[0], start.search)
        beginning = text(tree, file) if file else ""
        if beginning.startswith("#!") and "\0" not in beginning:
            script, said = beginning, f"/{file}"
    yield from services.started(tree, main, script, said)


def _init(tree: Tree, words: Sequence[str], path: str) -> tuple[str, str]:
    """The init system that would be process 1, and its file; empty when a program would."""
    if not words:
        return (_kind(tree, path), path) if path else ("", "")
    named = commands.init_named(words[0])
    if named is None or (named == "" and tree.look("etc/s6-overlay") is not None):
        return "", ""
    return named or _kind(tree, path), path or words[0].strip("/")


def _kind(tree: Tree, path: str) -> str:
    """Which init a file is: by what it links to, or by what lies around it."""
    target = tree.target(path) or path
    for sign, name in _LINKS:
        if sign in target:
            return name
    if tree.look("etc/openrc") or tree.look("etc/runlevels"):
        return "openrc"
    return "sysvinit" if tree.look("etc/inittab") else "init"
