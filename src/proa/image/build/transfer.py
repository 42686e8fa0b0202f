"""The instructions COPY and ADD.

`--link` changes nothing: a layer is always made apart, and the files are those that Docker's own
builder and Buildah give, which follow links at the destination with or without it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.errors import Invalid
from proa.image.build import cache, copy, modes, remote, users
from proa.image.build.copy import Part, Wanted
from proa.image.build.instructions import Instruction
from proa.image.build.place import DIRECTORY_MODE, Manner
from proa.image.build.plan import Origin
from proa.image.build.stage import Keys, Stage
from proa.image.build.walk import Tree, Walker, open_root


@dataclass(frozen=True)
class _Order:
    """One COPY or ADD, expanded."""

    instruction: Instruction
    local: tuple[str, ...]  # sources in the order they are written
    far: tuple[str, ...]
    where: str
    chown: str
    chmod: str
    parents: bool
    excludes: tuple[str, ...]
    unpack: bool | None

    @property
    def adding(self) -> bool:
        return self.instruction.keyword == "ADD"

    def facts(self) -> list[Any]:
        """All that decides what is made of the sources."""
        heredocs = [[heredoc.name, heredoc.content] for heredoc in self.instruction.heredocs]
        return [
            self.instruction.keyword, self.local, self.far, self.where, self.chown, self.chmod,
            self.parents, self.excludes, self.unpack, heredocs,
            self.instruction.flag("checksum"), self.instruction.switch("keep-git-dir"),
        ]  # fmt: skip


def transfer(stage: Stage, instruction: Instruction) -> None:
    """Carry out COPY or ADD."""
    order = _order(stage, instruction)
    origin = _origin(stage, instruction)
    shop = stage.shop
    with ExitStack() as opened:
        found = _Sources(stage, order, origin, opened)
        head = [*order.facts(), stage.state.chain, shop.epoch]
        fast = None
        if origin is not None and not origin.directory:
            fast = cache.key("files of", head, stage.stack(origin).chain)

        def make(number: int, made: Path) -> None:
            found.number = number
            with stage.target(made) as target:
                owner = users.owner(order.chown, target.fd) if order.chown else None
                copy.write(target, found.parts(), order.where, _manner(order, owner))

        def content() -> str:
            return cache.key("files", head, copy.digest(found.parts()), found.times())

        stage.layered(instruction, Keys(fast, content), make)
    stage.state.draft.record(_history(order), layer=True)


def _order(stage: Stage, instruction: Instruction) -> _Order:
    *sources, text = instruction.arguments
    adding = instruction.keyword == "ADD"
    far = tuple(source for source in sources if adding and remote.is_remote(source))
    local = tuple(source for source in sources if source not in far)
    chmod = instruction.flag("chmod")
    if chmod:
        modes.parse(chmod)
    if not adding and any(map(remote.is_remote, local)):
        raise instruction.error("COPY cannot fetch from elsewhere", hint="use ADD")
    if instruction.flag("checksum") and (len(sources) != 1 or not far):
        raise instruction.error("--checksum is for one source that is fetched from elsewhere")
    return _Order(
        instruction, local, far, copy.destination(stage.state.draft.directory, text),
        instruction.flag("chown"), chmod, bool(instruction.switch("parents")),
        instruction.flag_values("exclude"), instruction.switch("unpack"),
    )  # fmt: skip


def _origin(stage: Stage, instruction: Instruction) -> Origin | None:
    """The tree of local sources; None for the build's context."""
    name = instruction.flag("from")
    return stage.origin(name, instruction, numbers=True) if name else None


def _manner(order: _Order, owner: tuple[int, int] | None) -> Manner:
    if not order.chmod:
        return Manner(owner)
    made = modes.octal(order.chmod)
    return Manner(owner, modes.parse(order.chmod), DIRECTORY_MODE if made is None else made)


def _history(order: _Order) -> str:
    instruction = order.instruction
    words = [instruction.keyword]
    if order.parents:
        words.append("--parents")
    words += [
        f"--{name}={value}" for name in ("chown", "chmod") if (value := instruction.flag(name))
    ]
    words += instruction.arguments[:-1]
    words += [f"<<{heredoc.name}" for heredoc in instruction.heredocs]
    return " ".join([*words, instruction.arguments[-1], "# buildkit"])


class _Sources:
    """The sources of one instruction, opened and fetched when they are first asked for."""

    def __init__(
        self, stage: Stage, order: _Order, origin: Origin | None, opened: ExitStack
    ) -> None:
        self._stage = stage
        self._order = order
        self._origin = origin
        self._opened = opened
        self._found: list[Part] | None = None
        self._times: list[int] = []
        self.number = 0

    def parts(self) -> Sequence[Part]:
        """Everything to copy, in order."""
        if self._found is None:
            self._found = [*self._far(), *self._local(), *self._heredocs()]
        return self._found

    def times(self) -> list[int]:
        """Of fetched files: what a server says of them is part of what they are."""
        return self._times

    def _local(self) -> list[Part]:
        order = self._order
        if not order.local:
            return []
        wanted = Wanted(
            order.local, order.parents, order.excludes,
            order.adding if order.unpack is None else order.unpack,
            self._stage.shop.images.bounds,
        )  # fmt: skip
        return copy.parts(self._walker(), wanted)

    def _walker(self) -> Walker:
        origin, stage = self._origin, self._stage
        if origin is None or origin.directory:
            context = stage.shop.context("" if origin is None else origin.directory)
            return self._opened.enter_context(context.walker())
        return self._opened.enter_context(stage.reader(stage.stack(origin).roots))

    def _far(self) -> list[Part]:
        return [self._fetched(source) for source in self._order.far]

    def _fetched(self, source: str) -> Part:
        shop, instruction = self._stage.shop, self._order.instruction
        checksum, directory = instruction.flag("checksum"), shop.path()
        if remote.is_git(source):
            keep = bool(instruction.switch("keep-git-dir"))
            found = remote.clone(source, directory, keep, checksum, shop.check)
        else:
            watch = (shop.check, shop.moved(self.number, source))
            found = remote.fetch(source, directory, checksum, watch)
            self._times.append(os.stat(found.directory / found.name).st_mtime_ns)
        walker = self._own(found.directory)
        place = walker.resolve(found.name)
        if place is None:
            raise Invalid(f"'{source}' has no '{found.name}'")
        return Part(
            walker, place, found.name, None, copy.filter_of(self._order.excludes),
            bool(self._order.unpack), shop.images.bounds,
        )  # fmt: skip

    def _heredocs(self) -> list[Part]:
        found: list[Part] = []
        for heredoc in self._order.instruction.heredocs:
            directory = self._stage.shop.path(make=True)
            fd = os.open(directory / "file", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            with open(fd, "wb") as file:
                file.write(heredoc.content.encode("utf-8", "surrogateescape"))
            os.utime(directory / "file", ns=(0, 0))
            found.append(Part(self._own(directory), "file", heredoc.name))
        return found

    def _own(self, directory: Path) -> Walker:
        fd = open_root(directory)
        self._opened.callback(os.close, fd)
        return self._opened.enter_context(Walker(Tree(fd, root_owned=True)))
