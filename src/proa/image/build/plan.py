"""Which stages a build needs, what each begins with, and what variables FROM may use."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from proa.errors import BuildError, Invalid
from proa.image import platforms, reference
from proa.image.build import mounts, scope, words
from proa.image.build.instructions import Containerfile, Instruction, Stage
from proa.image.build.request import BuildRequest
from proa.image.build.text import did_you_mean
from proa.image.platforms import Platform

SCRATCH = "scratch"
IMAGE_CONTEXT = "docker-image://"
LAYERED = ("RUN", "COPY", "ADD", "WORKDIR")


@dataclass(frozen=True)
class Origin:
    """Where files come from: a stage's index, else an image's name, else a directory."""

    stage: int = -1
    image: str = ""
    directory: str = ""

    @property
    def nothing(self) -> bool:
        """Whether it is `scratch`."""
        return self.stage < 0 and not self.image and not self.directory


@dataclass(frozen=True)
class Node:
    """One stage of the plan; `replaced`: a named context stands in for it."""

    index: int
    stage: Stage
    name: str  # as progress shows it
    base: Origin
    platform: str
    needs: tuple[int, ...]
    replaced: bool = False


@dataclass(frozen=True)
class Plan:
    """A build: `needed` stages in order, `target` the last of them, `globals` for FROM and ARG."""

    file: Containerfile
    nodes: tuple[Node, ...]
    needed: tuple[int, ...]
    target: int
    globals: Mapping[str, str]
    platform: Platform

    def names(self) -> dict[str, int]:
        """Stages by name."""
        return _names(self.file)


def make(file: Containerfile, request: BuildRequest) -> Plan:
    """The plan of a build.  Raises BuildError, Invalid."""
    wanted = platforms.parse(request.platform)
    target = _target(file, request.target)
    predefined = scope.platform_variables(
        str(platforms.here()), str(wanted), file.stages[target].name
    )
    known = scope.of_file(file, predefined, request.arguments)
    nodes = tuple(_node(file, request, known, index) for index in range(len(file.stages)))
    needed: set[int] = set()
    waiting = [target]
    while waiting:
        index = waiting.pop()
        if index not in needed:
            needed.add(index)
            waiting += nodes[index].needs
    return Plan(file, nodes, tuple(sorted(needed)), target, known, wanted)


def _names(file: Containerfile) -> dict[str, int]:
    return {stage.name: index for index, stage in enumerate(file.stages) if stage.name}


def _target(file: Containerfile, text: str) -> int:
    names = _names(file)
    if not text:
        return len(file.stages) - 1
    if text.lower() in names:
        return names[text.lower()]
    raise BuildError(
        f"target stage '{text}' is not in '{file.name}'",
        hint=did_you_mean(text, names),
        file=file.name,
    )


def _node(file: Containerfile, request: BuildRequest, known: Mapping[str, str], index: int) -> Node:
    stage, escape = file.stages[index], file.directives.escape
    name = stage.name or (f"stage-{index}" if len(file.stages) > 1 else "")
    with words.pointing(stage.origin):
        base = words.word(stage.base, known, escape)
        chosen = words.word(stage.platform, known, escape)
    if not base:
        raise stage.origin.error(f"the base '{stage.base}' is empty", hint="is an ARG missing?")
    if stage.platform:
        _checked_platform(stage, chosen)
    if stage.name and stage.name in request.contexts:
        origin = context(request.contexts[stage.name])
        return Node(index, stage, name, origin, chosen, (), replaced=True)
    earlier = {key: at for key, at in _names(file).items() if at < index}
    if base.lower() in earlier:
        found = Origin(stage=earlier[base.lower()])
    else:
        found = outside(base, request, stage.origin)
    needs = [found.stage] if found.stage >= 0 else []
    for instruction in stage.instructions:
        needs += sources(instruction, earlier, index)
    return Node(index, stage, name, found, chosen, tuple(dict.fromkeys(needs)))


def _checked_platform(stage: Stage, text: str) -> None:
    try:
        if not text:
            raise Invalid(f"the platform '{stage.platform}' is empty", hint="is an ARG missing?")
        platforms.parse(text)
    except Invalid as error:
        raise stage.origin.error(error.message, hint=error.hint) from error


def sources(instruction: Instruction, names: Mapping[str, int], index: int) -> list[int]:
    """The stages before the `index`-th that an instruction takes files from."""
    found: list[int] = []
    if instruction.keyword == "COPY":
        found.append(stage_of(instruction.flag("from"), names, index, numbers=True))
    elif instruction.keyword == "RUN":
        for text in instruction.flag_values("mount"):
            found += (stage_of(name, names, index) for name in mounts.origins(text))
    return [at for at in found if at >= 0]


def stage_of(name: str, names: Mapping[str, int], index: int, *, numbers: bool = False) -> int:
    """The stage before the `index`-th that is called `name`; -1 when none is."""
    if numbers and name.isascii() and name.isdecimal() and len(name) < 6:
        return int(name) if int(name) < index else -1
    at = names.get(name.lower(), -1)
    return at if at < index else -1


def outside(name: str, request: BuildRequest, instruction: Instruction) -> Origin:
    """What a name that is no stage means: a named context, `scratch`, or an image."""
    if name == SCRATCH:
        return Origin()
    for said in (name, _familiar(name)):
        if said in request.contexts:
            return context(request.contexts[said])
    try:
        reference.parse(name)
    except Invalid as error:
        raise instruction.error(error.message, hint=error.hint) from error
    return Origin(image=name)


def _familiar(name: str) -> str:
    try:
        return reference.parse(name).familiar
    except Invalid:
        return name


def context(text: str) -> Origin:
    """What `--build-context name=text` means."""
    if text.startswith(IMAGE_CONTEXT):
        return Origin(image=text.removeprefix(IMAGE_CONTEXT))
    if "://" in text or not posixpath.isabs(text):
        raise Invalid(
            f"cannot use '{text[:100]}' as a build context",
            hint="a context is a directory of this host, or docker-image://name",
        )
    return Origin(directory=text)


def steps(stage: Stage, base: Origin) -> int:
    """How many lines of progress a stage has."""
    layered = sum(instruction.keyword in LAYERED for instruction in stage.instructions)
    return layered + bool(base.image or base.directory)
