"""The instruction RUN: a step for the runner, its mounts resolved."""

from __future__ import annotations

import os
import posixpath
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.errors import BuildError, Invalid, LaunchError, NotFound
from proa.image.build import cache, mounts, scope, script, view
from proa.image.build.cachemounts import CacheMount
from proa.image.build.instructions import Instruction, Mount
from proa.image.build.place import Manner, Target
from proa.image.build.request import Output
from proa.image.build.stage import Keys, Stage
from proa.image.build.step import Step, StepMount

LAST_LINES = 10  # of a failed step's output, told with the error
SECRETS = "/run/secrets"
AGENT = "/run/buildkit/ssh_agent.0"


@dataclass
class _Prepared:
    """What a step needs beyond its command; `facts` are what its mounts add to its key."""

    mounts: list[Callable[[ExitStack], StepMount]] = field(default_factory=list)
    facts: list[Any] = field(default_factory=list)
    secret_environment: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


def run(stage: Stage, instruction: Instruction) -> None:
    """Carry out RUN."""
    state, shop, request = stage.state, stage.shop, stage.shop.request
    if instruction.flag("security") == "insecure":
        raise instruction.error("steps do not run with --security=insecure")
    command = script.command(instruction, state.draft.shell)
    prepared = _Prepared()
    if command.script is not None:
        _script(stage, prepared, command.script)
    for mount in mounts.mounts(instruction, stage.environment, stage.escape):
        _KINDS[mount.kind](stage, instruction, mount, prepared)
    network = instruction.flag("network") or request.network
    key = cache.key(
        "RUN", state.chain, command.arguments, stage.environment, prepared.environment,
        state.draft.user, state.draft.directory, prepared.facts, network, request.hosts,
        request.isolation, shop.epoch,
    )  # fmt: skip

    def make(number: int, made: Path) -> None:
        with ExitStack() as opened:
            environment = stage.environment | prepared.environment
            step = Step(
                command.arguments,
                tuple(
                    f"{name}={value}"
                    for name, value in (
                        scope.proxies(request.arguments) | environment | prepared.secret_environment
                    ).items()
                ),
                state.draft.directory, state.draft.user,
                tuple(mount(opened) for mount in prepared.mounts), network,
                request.isolation, request.hosts, request.shm_bytes, request.memory_bytes,
                request.cpus, str(state.draft.document.get("architecture") or ""),
            )  # fmt: skip
            _execute(stage, instruction, step, (number, made))

    stage.layered(instruction, Keys(key), make)
    state.draft.record(f"RUN {_history(stage, command.arguments)} # buildkit", layer=True)


def _history(stage: Stage, arguments: tuple[str, ...]) -> str:
    said = [
        f"{name}={stage.environment.get(name, value or '')}"
        for name, value in stage.arguments.items()
    ]
    return " ".join([*([f"|{len(said)}"] if said else []), *said, *arguments])


def _execute(stage: Stage, instruction: Instruction, step: Step, made: tuple[int, Path]) -> None:
    number, directory = made
    shop = stage.shop
    roots = stage.state.roots or (shop.nothing,)
    view.prepare(roots, directory)
    last: deque[bytes] = deque(maxlen=LAST_LINES)
    rest = {1: b"", 2: b""}

    def output(stream: int, data: bytes) -> None:
        shop.tell(Output(number, stream, data))
        *lines, left = (rest[stream] + data).split(b"\n")
        last.extend(lines)
        rest[stream] = left[-2000:]

    try:
        code = shop.runner.run(step, roots, directory, output, shop.stop)
    except LaunchError as error:
        raise _failed(instruction, step, error.exit_code, [error.message]) from error
    if code:
        last.extend(filter(None, rest.values()))
        lines = [line.decode(errors="replace")[-500:] for line in last]
        raise _failed(instruction, step, code, lines)


def _failed(instruction: Instruction, step: Step, code: int, said: list[str]) -> BuildError:
    text = " ".join(step.arguments)
    if len(text) > 300:
        text = text[:297] + "..."
    at = instruction.location
    return BuildError(
        f"process '{text}' did not complete successfully: exit code: {code}",
        hint="\n".join(said), file=at.file, line=at.line, column=at.column,
        source=at.source.split("\n")[0], step_exit=code,
    )  # fmt: skip


# -- mounts ---------------------------------------------------------------------------------------


def _script(stage: Stage, prepared: _Prepared, said: tuple[str, str]) -> None:
    """The file of a heredoc that begins with `#!`."""
    name, text = said
    directory = stage.shop.path(make=True)
    fd = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    with open(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.chmod(directory / name, 0o755)
    mount = StepMount("bind", script.SCRIPT_DIRECTORY, layers=(directory,), readonly=True)
    prepared.mounts.append(lambda opened: mount)
    prepared.facts.append(["script", name, text])


def _target(stage: Stage, instruction: Instruction, text: str) -> str:
    path = posixpath.normpath(posixpath.join(stage.state.draft.directory, text))
    if path in ("/", "//"):
        raise instruction.error(f"cannot mount at '{text}'", hint="give a 'target' below the root")
    return "/" + path.lstrip("/")


def _bind(stage: Stage, instruction: Instruction, mount: Mount, prepared: _Prepared) -> None:
    target = _target(stage, instruction, mount.target)
    source = posixpath.normpath("/" + mount.source).lstrip("/")
    origin = stage.origin(mount.origin, instruction, numbers=False) if mount.origin else None
    head: list[Any] = ["bind", target, mount.readonly, source]
    if origin is not None and not origin.directory:
        stack = stage.stack(origin)
        roots = stack.roots or (stage.shop.nothing,)
        made = StepMount("bind", target, layers=roots, subpath=source, readonly=mount.readonly)
        prepared.mounts.append(lambda opened: made)
        prepared.facts.append([*head, stack.chain])
        return
    context = stage.shop.context(origin.directory if origin is not None else "")
    with context.walker() as walker:
        place = walker.resolve(source)
        if place is None:
            raise NotFound(f"'{mount.source}' is not there", hint="is it in .dockerignore?")
        prepared.facts.append([*head, walker.digest(walker.walk(place)).hex()])

    def copied(opened: ExitStack) -> StepMount:
        """A copy of it: a step sees what an image would have, and can change nothing else."""
        directory = stage.shop.path(make=True)
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with context.walker() as reader, Target(fd, stage.shop.check) as writer:
                writer.copy(reader, reader.walk(place), "it", Manner())
        finally:
            os.close(fd)
        return StepMount("bind", target, layers=(directory,), subpath="it", readonly=mount.readonly)

    prepared.mounts.append(copied)


def _cache(stage: Stage, instruction: Instruction, mount: Mount, prepared: _Prepared) -> None:
    target = _target(stage, instruction, mount.target)
    source = posixpath.normpath("/" + mount.source).lstrip("/")
    origin = stage.origin(mount.origin, instruction, numbers=False) if mount.origin else None
    stack = None
    if origin is not None and not origin.nothing:
        if origin.directory:
            raise Invalid("a cache cannot begin with a directory of this host")
        stack = stage.stack(origin)
    id = mount.id or posixpath.normpath(mount.target)
    mode = 0o755 if mount.mode is None else mount.mode
    wanted = CacheMount(
        id, mount.sharing or "shared", "" if stack else source,
        f"{stack.chain} {source}" if stack else "", mount.uid or 0, mount.gid or 0, mode,
    )  # fmt: skip

    def fill(place: Target) -> None:
        if stack is not None:
            with stage.reader(stack.roots) as walker:
                top = walker.resolve(source)
                if top is None:
                    raise NotFound(f"'{mount.source}' is not in '{mount.origin}'")
                place.copy(walker, walker.walk(top), "", Manner())

    def used(opened: ExitStack) -> StepMount:
        path = opened.enter_context(stage.shop.mounts.use(wanted, fill, stage.shop.pause))
        return StepMount("cache", target, source=path, readonly=mount.readonly)

    prepared.mounts.append(used)
    prepared.facts.append(
        ["cache", target, id, wanted.sharing, source, wanted.seed, mount.readonly,
         wanted.uid, wanted.gid, mode]
    )  # fmt: skip


def _tmpfs(stage: Stage, instruction: Instruction, mount: Mount, prepared: _Prepared) -> None:
    made = StepMount(
        "tmpfs", _target(stage, instruction, mount.target), size_bytes=mount.size_bytes
    )
    prepared.mounts.append(lambda opened: made)
    prepared.facts.append(["tmpfs", made.target, made.size_bytes])


def _secret(stage: Stage, instruction: Instruction, mount: Mount, prepared: _Prepared) -> None:
    id = mount.source or mount.id or posixpath.basename(mount.target)
    value = stage.shop.request.secrets.get(id)
    name = None if mount.variable is None else (mount.variable or posixpath.basename(id))
    target = mount.target or ("" if name is not None else f"{SECRETS}/{posixpath.basename(id)}")
    mode = 0o400 if mount.mode is None else mount.mode
    prepared.facts.append(["secret", id, target, name, mount.uid, mount.gid, mode])
    if value is None:
        if mount.required:
            raise instruction.error(
                f"the secret '{id}' was not given", hint=f"give it with --secret id={id},src=FILE"
            )
        return
    if name is not None:
        prepared.secret_environment[name] = value.decode("utf-8", "surrogateescape")
    if not target:
        return
    where = _target(stage, instruction, target)

    def written(opened: ExitStack) -> StepMount:
        path = stage.shop.path()
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        opened.callback(path.unlink)
        with open(fd, "wb") as file:
            file.write(value)
        uid, gid = mount.uid or 0, mount.gid or 0
        return StepMount("secret", where, source=path, readonly=True, uid=uid, gid=gid, mode=mode)

    prepared.mounts.append(written)


def _ssh(stage: Stage, instruction: Instruction, mount: Mount, prepared: _Prepared) -> None:
    id = mount.id or "default"
    source = stage.shop.request.ssh.get(id)
    target = _target(stage, instruction, mount.target or AGENT)
    mode = 0o600 if mount.mode is None else mount.mode
    prepared.facts.append(["ssh", id, target, mount.uid, mount.gid, mode])
    if source is None:
        if mount.required:
            raise instruction.error(
                f"the ssh agent '{id}' was not given", hint="give it with --ssh"
            )
        return
    made = StepMount(
        "ssh", target, source=source, uid=mount.uid or 0, gid=mount.gid or 0, mode=mode
    )
    prepared.mounts.append(lambda opened: made)
    prepared.environment.setdefault("SSH_AUTH_SOCK", target)


_KINDS: dict[str, Callable[[Stage, Instruction, Mount, _Prepared], None]] = {
    "bind": _bind, "cache": _cache, "tmpfs": _tmpfs, "secret": _secret, "ssh": _ssh,
}  # fmt: skip
