"""The `proa` command: find the command's row, run it, turn what it raises into an exit code.

Modules are imported only for the command at hand: start-up time is the whole cost of a CLI.
"""

from __future__ import annotations

import os
import sys

from proa.cli.options import Command, HelpAsked, parse
from proa.errors import Invalid, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

MODULES: dict[str, tuple[str, ...]] = {
    "run": ("run", "create"),
    "process": ("exec", "attach", "logs", "top", "wait", "cp"),
    "instance": (
        "start", "stop", "restart", "kill", "rm", "rename", "pause", "unpause",
        "ps", "port", "stats", "update",
    ),
    "registry": ("pull", "push", "login", "logout", "tags"),
    "image": ("images", "load", "save", "import", "tag", "rmi", "history"),
    "usage": ("df", "image-prune", "system-prune"),
    "ssh": ("ssh",),
    "console": ("console",),
    "changes": ("commit", "diff", "export"),
    "disks": ("to-disk", "from-disk"),
    "chains": ("disk-ls", "disk-df", "disk-flatten", "disk-rebase", "rollback"),
    "packages": ("from-packages",),
    "build": ("build",),
    "sbom": ("sbom",),
    "compare": ("compare",),
    "advise": ("advise",),
    "screen": ("screen", "keys"),
    "duplicate": (
        "fork", "migrate", "suspend", "resume", "snapshot-create", "snapshot-ls",
        "snapshot-inspect", "snapshot-restore", "snapshot-rm", "snapshot-push", "snapshot-pull",
    ),
    "volume": (
        "volume-create", "volume-ls", "volume-inspect", "volume-rm", "volume-prune",
        "volume-attach", "volume-detach", "disk-attach", "disk-detach",
    ),
    "network": (
        "network-create", "network-ls", "network-inspect", "network-rm", "network-prune",
        "network-connect", "network-disconnect",
    ),
    "system": ("inspect", "events", "info", "version", "engine"),
}  # fmt: skip

_INSTANCE_VERBS = (
    "attach", "commit", "cp", "create", "diff", "exec", "export", "inspect", "kill", "logs",
    "pause", "port", "rename", "restart", "rm", "rollback", "run", "start", "stats", "stop", "top",
    "unpause", "update", "wait",
)  # fmt: skip

_SNAPSHOT_VERBS = ("create", "ls", "inspect", "restore", "rm", "push", "pull")

NOUNS: dict[str, dict[str, str]] = {
    "container": {**{verb: verb for verb in _INSTANCE_VERBS}, "ls": "ps", "ps": "ps", "list": "ps"},
    "instance": {**{verb: verb for verb in _INSTANCE_VERBS}, "ls": "ps", "ps": "ps", "list": "ps"},
    "image": {
        "ls": "images", "list": "images", "rm": "rmi", "load": "load", "save": "save",
        "import": "import", "tag": "tag", "history": "history", "inspect": "inspect --type=image",
        "pull": "pull", "push": "push", "tags": "tags", "prune": "image-prune",
        "to-disk": "to-disk", "from-disk": "from-disk",
        "from-packages": "from-packages", "sbom": "sbom",
    },
    "disk": {
        "ls": "disk-ls", "df": "disk-df", "flatten": "disk-flatten", "rebase": "disk-rebase",
        "rollback": "rollback", "attach": "disk-attach", "detach": "disk-detach",
    },
    "volume": {
        "create": "volume-create", "ls": "volume-ls", "list": "volume-ls",
        "inspect": "volume-inspect", "rm": "volume-rm", "prune": "volume-prune",
        "attach": "volume-attach", "detach": "volume-detach",
    },
    "snapshot": {
        **{verb: f"snapshot-{verb}" for verb in _SNAPSHOT_VERBS},
        "list": "snapshot-ls",
    },
    "network": {
        "create": "network-create", "ls": "network-ls", "list": "network-ls",
        "inspect": "network-inspect", "rm": "network-rm", "prune": "network-prune",
        "connect": "network-connect", "disconnect": "network-disconnect",
    },
    "system": {"df": "df", "prune": "system-prune", "info": "info", "events": "events"},
}  # fmt: skip


def _load(name: str) -> Command | None:
    for module, names in MODULES.items():
        if name in names:
            loaded = __import__(f"proa.cli.{module}", fromlist=("COMMANDS",))
            row: Command = loaded.COMMANDS[name]
            return row
    return None


def _global_options(words: list[str]) -> list[str]:
    """Take what stands before the command."""
    while words and words[0].startswith("-"):
        word, *words = words
        name, equals, value = word.partition("=")
        if name in ("-H", "--host"):
            if not equals:
                if not words:
                    raise Invalid(f"option '{name}' needs a value: unix://PATH")
                value, *words = words
            os.environ["PROA_HOST"] = value
        elif word in ("-v", "--version"):
            return ["version", "--short"]
        elif word in ("-h", "--help"):
            return ["help"]
        else:
            raise Invalid(f"unknown option '{word}'", hint="see `proa --help`")
    return words


def _resolve(words: list[str]) -> tuple[str, list[str]]:
    """Name and words of the command, a noun form made into the plain one."""
    if not words or words[0] == "help":
        return "help", words[1:]
    name, *rest = words
    verbs = NOUNS.get(name)
    if verbs is None:
        return name, rest
    if rest and rest[0] in ("-h", "--help"):
        return "help", [name]
    if not rest or rest[0] not in verbs:
        got = f"'{rest[0]}' is not a command of '{name}'" if rest else f"'{name}' needs a command"
        raise Invalid(got, hint=f"one of: {', '.join(sorted(verbs))}")
    plain = verbs[rest[0]].split()
    return plain[0], plain[1:] + rest[1:]


def _help(words: list[str]) -> int:
    from proa.cli import help as texts

    if len(words) == 1 and words[0] in NOUNS:
        found = ((verb, _load(plain.split()[0])) for verb, plain in NOUNS[words[0]].items())
        print(texts.noun_help(words[0], [(verb, row) for verb, row in found if row]))
        return 0
    if words:
        return dispatch([*words, "--help"])
    print(texts.overview(MODULES, NOUNS))
    return 0


def dispatch(words: list[str]) -> int:
    """Run one command line.  Raises what the command raises."""
    name, rest = _resolve(_global_options(words))
    if name == "help":
        return _help(rest)
    command = _load(name)
    if command is None:
        raise Invalid(f"unknown command '{name}'", hint="see `proa --help`")
    try:
        values, arguments = parse(name, command, rest)
    except HelpAsked:
        from proa.cli.help import command_help

        print(command_help(name, command))
        return 0
    return command.run(values, arguments)


def complain(error: ProaError) -> None:
    """One line of message, and the hint on its own."""
    text = f"proa: {error.message}\n"
    if error.hint:
        text += f"hint: {error.hint}\n"
    sys.stderr.write(text)


def run(words: list[str]) -> int:
    """The exit code of one command line; nothing escapes but what PROA_DEBUG lets through."""
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except ProaError as error:
        if os.environ.get("PROA_DEBUG"):
            raise
        complain(error)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_BROKEN_PIPE
    except OSError as error:
        if os.environ.get("PROA_DEBUG"):
            raise
        place = f"'{error.filename}': " if error.filename else ""
        complain(ProaError(f"{place}{(error.strerror or str(error)).lower()}"))
        return ProaError.exit_code
    except Exception as error:
        if os.environ.get("PROA_DEBUG"):
            raise
        complain(
            ProaError(
                f"unexpected {type(error).__name__}: {' '.join(str(error).split())}",
                hint="PROA_DEBUG=1 shows where; please report it",
            )
        )
        return ProaError.exit_code


def main() -> NoReturn:
    """Entry point: skips the interpreter's own shutdown, there is nothing left to release."""
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (BrokenPipeError, ValueError):
        code = code or EXIT_BROKEN_PIPE
    os._exit(code)
