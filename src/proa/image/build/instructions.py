"""What a Containerfile says: frozen, unexpanded, every piece with the place it was written at.

One shape for all instructions: expansion and checking are then tables over keywords.  `form` says
where the arguments are:

    exec    `arguments`: the strings of a JSON array           RUN CMD ENTRYPOINT SHELL HEALTHCHECK,
                                                               COPY ADD VOLUME (words with blanks)
    shell   `arguments`: one text for the shell, or none       RUN CMD ENTRYPOINT HEALTHCHECK
    words   `arguments`: words, split at blanks                FROM COPY ADD EXPOSE VOLUME
    text    `arguments`: one text, or none                     WORKDIR USER STOPSIGNAL MAINTAINER
    pairs   `pairs`: names and values                          ENV LABEL ARG
    trigger `arguments`: the instruction to keep, as text      ONBUILD
    none    nothing                                            HEALTHCHECK NONE

COPY and ADD: the last argument is the destination; sources that are heredocs are not among the
arguments, only in `heredocs` (already without leading tabs for `<<-`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proa.errors import BuildError

Place = tuple[int, int]  # line and column, both from 1


@dataclass(frozen=True)
class Location:
    """Where an instruction stands; `source` is its physical lines, from `line` to `end_line`."""

    file: str
    line: int
    end_line: int
    column: int = 1
    source: str = ""

    def error(self, message: str, *, hint: str = "", at: Place | None = None) -> BuildError:
        """An error that points here, or at a place within."""
        line, column = at or (self.line, self.column)
        lines = self.source.split("\n")
        text = lines[line - self.line] if 0 <= line - self.line < len(lines) else ""
        return BuildError(message, hint=hint, file=self.file, line=line, column=column, source=text)


@dataclass(frozen=True)
class Flag:
    """`--name=value`, quotes gone, unexpanded; `value` is None without `=`."""

    name: str
    value: str | None
    place: Place = (0, 0)


@dataclass(frozen=True)
class Heredoc:
    """`<<name` and the lines up to its end, as written; `expand`: the name was not quoted.

    `chomp`: it was `<<-name`; in COPY and ADD the tabs are already gone from `content`.
    """

    name: str
    content: str
    expand: bool = True
    chomp: bool = False
    descriptor: int = 0


@dataclass(frozen=True)
class Instruction:
    """One instruction; `keyword` in upper case, `text` its logical line as people read it."""

    keyword: str
    form: str
    location: Location
    text: str = ""
    arguments: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str | None], ...] = ()
    flags: tuple[Flag, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    places: tuple[Place, ...] = ()  # of each argument or pair

    def flag(self, name: str, default: str = "") -> str:
        """The last value of `--name`; `default` when it is not there."""
        return next((flag.value or "" for flag in self.flags[::-1] if flag.name == name), default)

    def flag_values(self, name: str) -> tuple[str, ...]:
        """Each value of a repeatable `--name`, in order."""
        return tuple(flag.value or "" for flag in self.flags if flag.name == name)

    def switch(self, name: str) -> bool | None:
        """A flag that is on or off; None when it is not there."""
        found = [flag for flag in self.flags if flag.name == name]
        return (found[-1].value or "true").lower() == "true" if found else None

    def error(self, message: str, *, hint: str = "", at: Place | None = None) -> BuildError:
        """An error that points at this instruction, or at a place within it."""
        return self.location.error(message, hint=hint, at=at)


@dataclass(frozen=True)
class Directives:
    """`# name=value` lines at the top."""

    syntax: str = ""
    escape: str = "\\"
    check: str = ""


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next; `name` is lower case, empty when there is no AS.

    `base` and `platform` are unexpanded: only `meta_arguments` and platform ARGs count in them.
    """

    name: str
    base: str
    platform: str
    instructions: tuple[Instruction, ...]
    origin: Instruction  # the FROM itself

    @property
    def line(self) -> int:
        return self.origin.location.line


@dataclass(frozen=True)
class Containerfile:
    """A whole file; `meta_arguments` are the ARG instructions before the first FROM."""

    name: str
    directives: Directives = field(default_factory=Directives)
    meta_arguments: tuple[Instruction, ...] = ()
    stages: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Mount:
    """`RUN --mount=...`, typed and with its defaults; None is "not said"."""

    kind: str  # bind, cache, tmpfs, secret, ssh
    source: str = ""
    target: str = ""
    origin: str = ""  # from=
    readonly: bool = True
    id: str = ""
    sharing: str = ""  # shared, private, locked; empty: not said, shared
    required: bool = False
    size_bytes: int = 0
    variable: str | None = None  # env=: empty is "the id"
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True)
class Health:
    """HEALTHCHECK as the image's configuration has it; times in nanoseconds, 0 is "inherit"."""

    test: tuple[str, ...]
    interval_nanoseconds: int = 0
    timeout_nanoseconds: int = 0
    start_period_nanoseconds: int = 0
    start_interval_nanoseconds: int = 0
    retries: int = 0
