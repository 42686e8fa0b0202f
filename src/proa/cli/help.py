"""Help, made from the same tables that are parsed."""

from __future__ import annotations

from importlib import import_module

from proa.cli.options import Command, Option

TITLES = {
    "usage": "Disk use", "ssh": "Machines", "console": "Machines", "screen": "Machines",
    "chains": "Disks of vms", "disks": "Images and disks", "packages": "Build", "sbom": "Image",
    "advise": "Container or vm", "compare": "Container or vm",
    "duplicate": "Copies", "volume": "Volumes", "network": "Networks", "image": "Image",
}  # fmt: skip
Nouns = dict[str, dict[str, str]]


def command_help(name: str, command: Command) -> str:
    """What `proa NAME --help` prints."""
    lines = [f"Usage: proa {name} {command.usage}".rstrip(), "", command.summary]
    if command.options:
        lines += ["", "Options:"]
        lines += [_row(option) for option in sorted(command.options, key=_sort_key)]
    return "\n".join(lines)


def _sort_key(option: Option) -> str:
    return option.names[-1].lstrip("-")


def _row(option: Option) -> str:
    short = f"{option.names[0]}, " if len(option.names[0]) == 2 else "    "
    longs = ", ".join(name for name in option.names if len(name) > 2)
    names = f"  {short}{longs}" if longs else f"  {option.names[0]}"
    left = f"{names} {option.metavar}".rstrip()
    note = f" (default {option.default})" if option.default not in (None, "", False, True) else ""
    if option.kind == "flag" and option.default is True:
        note = " (default true)"
    gap = " " * max(2, 34 - len(left))
    return f"{left}{gap}{option.help}{note}"


def overview(modules: dict[str, tuple[str, ...]], nouns: Nouns) -> str:
    """What `proa --help` prints: every command with its summary."""
    lines = [
        "Usage: proa COMMAND [OPTIONS] [ARGUMENTS]",
        "",
        "Run one image either as a container or as a virtual machine.",
    ]
    groups: dict[str, list[str]] = {}
    for module, names in modules.items():
        table: dict[str, Command] = import_module(f"proa.cli.{module}").COMMANDS
        rows = groups.setdefault(TITLES.get(module, module.capitalize()), [])
        rows += [_line(_said(name, nouns), table[name]) for name in names]
    for title, rows in groups.items():
        lines += ["", f"{title}:", *rows]
    lines += [
        "",
        f"Nouns, as with docker: {', '.join(nouns)}; `proa NOUN --help` lists what they do.",
        "",
        "Options:",
        "  -H, --host unix://PATH   the engine's socket (or PROA_HOST)",
        "  -v, --version            print the version",
        "",
        "`proa COMMAND --help` tells more about a command.",
    ]
    return "\n".join(lines)


def noun_help(noun: str, rows: list[tuple[str, Command]]) -> str:
    """What `proa NOUN --help` prints."""
    lines = [f"Usage: proa {noun} COMMAND [OPTIONS] [ARGUMENTS]", ""]
    return "\n".join(lines + [_line(verb, command) for verb, command in sorted(rows, key=_verb)])


def _verb(row: tuple[str, Command]) -> str:
    return row[0]


def _line(name: str, command: Command) -> str:
    return f"  {name:<20} {command.summary}"


def _said(name: str, nouns: Nouns) -> str:
    """A command as people write it: `snapshot create`, where that is what it stands for."""
    noun, _, verb = name.partition("-")
    return f"{noun} {verb}" if nouns.get(noun, {}).get(verb) == name else name
