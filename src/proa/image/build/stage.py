"""One stage of a build: its instructions carried out, each layer found in the cache or made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.errors import BuildError, Cancelled, Invalid, NoSpace, ProaError
from proa.image import platforms
from proa.image.assembly import Assembly, Layer
from proa.image.build import cache, containerfile, plan, scope, users, view, words
from proa.image.build.config import DEFAULT_PATH, Draft
from proa.image.build.instructions import Instruction
from proa.image.build.place import Manner, Target
from proa.image.build.plan import LAYERED, Node, Origin
from proa.image.build.shop import Shop
from proa.image.build.walk import Tree, Walker
from proa.image.layer import tree


@dataclass
class State:
    """What a stage has come to; copied by stages that begin with it."""

    draft: Draft
    layers: list[Layer] = field(default_factory=list)
    chain: str = ""  # names the stack of layers
    moment: str = ""  # when the last layer was made
    environment: dict[str, str] = field(default_factory=dict)  # ENV and ARG, as they came
    arguments: dict[str, str | None] = field(default_factory=dict)  # ARG alone

    def push(self, layer: Layer, moment: str) -> None:
        """Put a layer on top."""
        self.layers.append(layer)
        self.chain = cache.chain(self.chain, layer.diff_id)
        self.moment = moment

    def copy(self) -> State:
        """The same, to go on from."""
        return State(
            Draft(self.draft.document), [*self.layers], self.chain, self.moment,
            {**self.environment}, {**self.arguments},
        )  # fmt: skip

    @property
    def roots(self) -> tuple[Path, ...]:
        """The unpacked layers, topmost first."""
        return tuple(dict.fromkeys(layer.root for layer in reversed(self.layers)))


@dataclass(frozen=True)
class Keys:
    """Where a step is looked up: `fast` is known at once; `content` reads what it depends on."""

    fast: str | None
    content: Callable[[], str] | None = None


class Stage:
    """One stage at work, in one thread."""

    def __init__(
        self, shop: Shop, node: Node, stage_of: Callable[[int], State], handlers: Handlers
    ) -> None:
        self.shop = shop
        self.node = node
        self.stage_of = stage_of
        self._handlers = {"ARG": Stage._argument, "WORKDIR": Stage._workdir, **handlers}
        self.escape = shop.plan.file.directives.escape
        self.state = State(Draft({}))
        self.assembly: Assembly
        self._index = self._total = self._number = 0

    @property
    def environment(self) -> dict[str, str]:
        """The variables of ENV and ARG."""
        return self.state.environment

    @property
    def arguments(self) -> dict[str, str | None]:
        """The variables of ARG."""
        return self.state.arguments

    # -- the base -------------------------------------------------------------------------------

    def build(self, assembly: Assembly, number: int) -> State:
        """Carry out everything; `number` is its first line of progress."""
        self.assembly, self._number = assembly, number
        node = self.node
        self._total = plan.steps(node.stage, node.base)
        with pointing(node.stage.origin):
            self.state = self._begin()
        if node.replaced:
            return self.state
        triggers = self._triggers()
        self._total += sum(trigger.keyword in LAYERED for trigger in triggers)
        if "PATH" not in self.state.draft.environment:
            self.state.draft.set_variable("PATH", DEFAULT_PATH)
        self.state.environment |= self.state.draft.environment
        for instruction in (*triggers, *node.stage.instructions):
            self.shop.check()
            with pointing(instruction):
                self._carry_out(words.expand(instruction, self.environment, self.escape))
            self._date()
        return self.state

    def _date(self) -> None:
        """History has the time of the layer it is about, or of the one before."""
        if self.state.moment and self.state.draft.history:
            self.state.draft.history[-1].setdefault("created", self.state.moment)

    def _begin(self) -> State:
        base = self.node.base
        if base.stage >= 0:
            return self.stage_of(base.stage).copy()
        if base.image:
            return self._image(base.image)
        wanted = (
            platforms.parse(self.node.platform) if self.node.platform else self.shop.plan.platform
        )
        document: dict[str, Any] = {
            "architecture": wanted.architecture, "os": wanted.os,
            "config": {"Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"},
        }  # fmt: skip
        if wanted.variant:
            document["variant"] = wanted.variant
        state = State(Draft(document))
        if base.directory:
            self._directory(state, base.directory)
        return state

    def _image(self, name: str) -> State:
        shop = self.shop
        with self._line(f"FROM {name}") as line:
            image = shop.image(name, self.node.platform)
            layers = self.assembly.layers_of(image)
            line.state = "cached" if not shop.request.pull else "done"
        moment = image.created if shop.epoch is None else shop.now()
        state = State(Draft(image.config), moment=moment)
        for layer in layers:
            state.push(layer, moment)
        return state

    def _directory(self, state: State, directory: str) -> None:
        """A named context that stands for a stage: its files are the one layer."""
        context = self.shop.context(directory)
        with self._line(f"FROM {directory}"), context.walker() as walker:

            def make(made: Path) -> None:
                with view.writable((), made) as fd, Target(fd, self.shop.check) as target:
                    target.copy(walker, walker.walk(""), "", Manner())

            found = cache.key("context", walker.digest(walker.walk("")).hex(), self.shop.epoch)
            layer, moment = self._layer(Keys(found), f"FROM {directory}", make)[:2]
        state.push(layer, moment)

    def _triggers(self) -> list[Instruction]:
        """ONBUILD of the base; they are not handed on."""
        texts = self.state.draft.config.pop("OnBuild", None) or []
        return [containerfile.parse_trigger(text, self.node.stage) for text in texts]

    # -- instructions ---------------------------------------------------------------------------

    def _carry_out(self, instruction: Instruction) -> None:
        handler = self._handlers.get(instruction.keyword)
        if handler is not None:
            handler(self, instruction)
            return
        self.state.draft.apply(instruction)
        if instruction.keyword == "ENV":
            self.state.environment |= {name: value or "" for name, value in instruction.pairs}

    def _argument(self, instruction: Instruction) -> None:
        said: list[str] = []
        shop = self.shop
        for name, value in scope.declared(
            instruction, self.environment, shop.plan.globals, shop.request.arguments, self.escape
        ):
            if value is not None:
                self.environment[name] = value
            self.arguments[name] = value
            said.append(name if value is None else f"{name}={value}")
        self.state.draft.record("ARG " + " ".join(said), layer=False)

    def _workdir(self, instruction: Instruction) -> None:
        draft, shop = self.state.draft, self.shop
        draft.apply(instruction)
        where = draft.directory
        if where == "/":
            return

        def make(made: Path) -> None:
            with self.target(made) as target:
                manner = Manner(owner=self._user_ids(target.fd))
                if shop.epoch is not None:
                    manner = Manner(manner.owner, times_ns=shop.epoch * 10**9)
                target.make_directories(target.real(where), manner)

        found = cache.key("WORKDIR", self.state.chain, where, draft.user, shop.epoch)
        self.layered(instruction, Keys(found), lambda number, made: make(made))

    def _user_ids(self, root_fd: int) -> tuple[int, int]:
        """Whose a working directory is: root's while USER does not exist."""
        try:
            return users.owner(self.state.draft.user or "0", root_fd)
        except Invalid:
            return 0, 0

    # -- layers ---------------------------------------------------------------------------------

    def layered(
        self, instruction: Instruction, keys: Keys, make: Callable[[int, Path], None]
    ) -> None:
        """Put the layer of an instruction on top: from the cache, or made by `make`, which gets
        the number of its line and a directory to hold `upper` and `work`."""
        with self._line(title(instruction)) as line:

            def work(made: Path) -> None:
                make(line.number, made)

            layer, moment, known = self._layer(keys, title(instruction), work)
            line.state = "cached" if known else "done"
        self.state.push(layer, moment)

    def _layer(
        self, keys: Keys, text: str, make: Callable[[Path], None]
    ) -> tuple[Layer, str, bool]:
        """A layer, its moment, and whether it was in the cache."""
        found = self._known(keys.fast)
        if found is not None:
            return *found, True
        full = keys.content() if keys.content is not None else keys.fast
        assert full is not None
        with self.shop.cache.alone(full, self.shop.check):
            found = self._known(full)
            known = found is not None
            if found is None:
                found = self._made(make)
            layer, moment = found
            for key in {full, keys.fast} - {None} if not known else {keys.fast} - {None}:
                assert key is not None
                self.shop.cache.put(cache.Record(key, layer.diff_id, text[:1000], moment))
        return layer, moment, known

    def _known(self, key: str | None) -> tuple[Layer, str] | None:
        if key is None or not self.shop.request.use_cache:
            return None
        record = self.shop.cache.find(key)
        layer = self.assembly.layer(record.diff_id) if record is not None else None
        return None if layer is None or record is None else (layer, record.created)

    def _made(self, make: Callable[[Path], None]) -> tuple[Layer, str]:
        shop = self.shop
        made = shop.path(make=True)
        while not shop.slots.acquire(timeout=0.05):
            shop.check()
        try:
            with tree.reporting("carry out a step"):
                make(made)
            layer = self.assembly.layer_from_upper(made / "upper", shop.epoch)
        finally:
            shop.slots.release()
        return layer, shop.now()

    @contextmanager
    def target(self, made: Path) -> Iterator[Target]:
        """The root of the stage, to write to."""
        with view.writable(self.state.roots, made) as fd, Target(fd, self.shop.check) as target:
            yield target

    # -- other places ---------------------------------------------------------------------------

    def origin(self, name: str, instruction: Instruction, *, numbers: bool) -> Origin:
        """What `from=name` means here."""
        names = self.shop.plan.names()
        at = plan.stage_of(name, names, self.node.index, numbers=numbers)
        if at >= 0:
            return Origin(stage=at)
        return plan.outside(name, self.shop.request, instruction)

    def stack(self, origin: Origin) -> State:
        """The layers of a stage or image."""
        if origin.stage >= 0:
            return self.stage_of(origin.stage)
        state = State(Draft({}))
        if origin.image:
            for layer in self.assembly.layers_of(self.shop.image(origin.image)):
                state.push(layer, "")
        return state

    @contextmanager
    def reader(self, roots: Sequence[Path]) -> Iterator[Walker]:
        """A reader of merged layers."""
        with view.merged(roots, self.shop.nothing) as fd, Walker(Tree(fd)) as walker:
            yield walker

    # -- progress -------------------------------------------------------------------------------

    def _line(self, text: str) -> Any:
        self._index += 1
        width = len(str(self._total))
        where = f"{self.node.name} " if self.node.name else ""
        number = self._number if self._index <= self._reserved else self.shop.lines(1)
        self._number += 1
        return self.shop.line(number, f"[{where}{self._index:{width}}/{self._total}] {text}")

    @property
    def _reserved(self) -> int:
        return plan.steps(self.node.stage, self.node.base)


Handlers = Mapping[str, Callable[[Stage, Instruction], None]]


def title(instruction: Instruction) -> str:
    """An instruction as progress shows it: one line, the beginning of a heredoc."""
    text = " ".join(instruction.text.split("\n")[0].split("\0"))
    if instruction.keyword == "RUN" and instruction.heredocs:
        lines = instruction.heredocs[0].content.strip().splitlines() or [""]
        text += f" ({lines[0]}{'...' if len(lines) > 1 else ''})"
    return text


@contextmanager
def pointing(instruction: Instruction) -> Iterator[None]:
    """What goes wrong is told with the line it happened at."""
    try:
        yield
    except (Cancelled, NoSpace):
        raise
    except BuildError as error:
        if error.line:
            raise
        raise instruction.error(error.message, hint=error.hint) from error
    except ProaError as error:
        raise instruction.error(error.message, hint=error.hint) from error
