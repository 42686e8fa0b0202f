"""Help, made from the same tables that are parsed."""

from __future__ import annotations

from importlib import import_module

from proa.cli.options import Command, Option

WIDTH = 100


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


def overview(modules: dict[str, tuple[str, ...]], nouns: dict[str, dict[str, str]]) -> str:
    """What `proa --help` prints: every command with its summary."""
    lines = [
        "Usage: proa COMMAND [OPTIONS] [ARGUMENTS]",
        "",
        "Run one image either as a container or as a virtual machine.",
    ]
    for module, names in modules.items():
        table: dict[str, Command] = import_module(f"proa.cli.{module}").COMMANDS
        lines += ["", f"{module.capitalize()}:"]
        lines += [f"  {name:<16}{table[name].summary}" for name in names]
    lines += ["", "Also, as with docker:"]
    lines += [f"  {noun:<16}{', '.join(sorted(verbs))}" for noun, verbs in nouns.items()]
    lines += [
        "",
        "Options:",
        "  -H, --host unix://PATH   the engine's socket (or PROA_HOST)",
        "  -v, --version            print the version",
        "",
        "`proa COMMAND --help` tells more about a command.",
    ]
    return "\n".join(lines)
