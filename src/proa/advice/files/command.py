"""What a command line really runs, behind shells, small inits and entry scripts.  Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

_WRAPPERS = frozenset(
    "tini dumb-init catatonit docker-init su-exec gosu setpriv env exec nice ionice stdbuf time "
    "tini-static gosu-amd64 chpst numactl".split()
)
_SHELLS = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh"})
_VALUED = frozenset({"-g", "-e", "-n", "-c", "-u", "-o", "--reuid", "--regid"})  # of wrappers
_INITS = {
    "systemd": "systemd", "openrc-init": "openrc", "init": "", "upstart": "upstart",
    "linuxrc": "busybox init",
}  # fmt: skip
# Programs that do a piece of work and end.
ENDS = frozenset(
    "true false echo date ls cp mv tar curl wget make cmake ninja gcc g++ cc go cargo rustc mvn "
    "gradle npm npx yarn pnpm pytest tox nox mypy ruff flake8 eslint terraform ansible-playbook "
    "kubectl helm aws gcloud pg_dump pg_restore mysqldump mongodump rsync git hugo ffmpeg convert "
    "flyway liquibase alembic trivy hadolint shellcheck jq yq restic borg rclone".split()
)
_SERVES = frozenset({"start", "serve", "dev", "watch", "server"})  # words that make them stay


def name(word: str) -> str:
    """A program's name without its directory."""
    return word.rpartition("/")[2]


def main(entrypoint: Sequence[str], command: Sequence[str]) -> tuple[str, ...]:
    """The words that matter of an entrypoint and a command."""
    words = [*entrypoint, *command]
    if entrypoint and command and _is_script(entrypoint[-1]) and len(entrypoint) == 1:
        words = [*command] if not command[0].startswith("-") else words
    for _ in range(8):
        if not words:
            return ()
        program = name(words[0])
        if program in _WRAPPERS:
            words = _behind(words[1:], program)
        elif program in _SHELLS and "-c" in words[1:3]:
            words = _first_words(words[words.index("-c") + 1 :])
        elif program in _SHELLS and len(words) > 1 and not words[1].startswith("-"):
            words = words[1:]
        else:
            return tuple(words)
    return tuple(words)


def script(entrypoint: Sequence[str], command: Sequence[str]) -> str:
    """The text after a shell's `-c`; empty when there is none."""
    words = [*entrypoint, *command]
    if len(words) > 2 and name(words[0]) in _SHELLS and words[1] == "-c":
        return words[2]
    return ""


def one_shot(words: Sequence[str]) -> bool:
    """Whether it is known to end by itself."""
    return bool(words) and name(words[0]) in ENDS and not _SERVES & set(words)


def init_named(word: str) -> str | None:
    """The init system a program's name stands for, empty when it says no more; None if none."""
    return _INITS.get(name(word))


def _is_script(word: str) -> bool:
    return name(word).endswith(".sh") or "entrypoint" in name(word)


def _behind(words: list[str], wrapper: str) -> list[str]:
    """What a wrapper runs: behind its options, settings, and the user of a few."""
    at = 0
    while at < len(words) and (words[at].startswith("-") or "=" in words[at]):
        if words[at] == "--":
            at += 1
            break
        at += 2 if words[at] in _VALUED else 1
    if wrapper.startswith(("su-exec", "gosu")):
        at += 1
    return words[at:]


def _first_words(text: Sequence[str]) -> list[str]:
    """The last command of a shell's text, which is the one that stays."""
    if not text:
        return []
    last = text[0].replace("&&", ";").replace("\n", ";").rstrip("; ").rpartition(";")[2]
    try:
        words = shlex.split(last)
    except ValueError:
        return []
    return words[1:] if words[:1] == ["exec"] else words
