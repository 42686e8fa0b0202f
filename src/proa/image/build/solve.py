"""A build from beginning to end: a request becomes an image, or leaves nothing behind.

Each stage that the target needs is one piece of work; threads take them in order.  Who needs a
stage that is not done does it, or waits for whoever does: stages only need those above them, so
nobody waits in a circle.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from proa.errors import Cancelled, Invalid
from proa.image.assembly import Assembly, Layer
from proa.image.build import containerfile, plan, run, shop, squash, stage, transfer
from proa.image.build.plan import Plan
from proa.image.build.request import BuildRequest, Report
from proa.image.build.shop import Fetch, Shop
from proa.image.build.stage import Stage, State
from proa.image.build.step import Runner
from proa.image.catalog import Image
from proa.image.store import Images

_THREADS = 16
_EPOCH = "SOURCE_DATE_EPOCH"
_WATCH_SECONDS = 0.1
_HANDLERS: stage.Handlers = {
    "RUN": run.run, "COPY": transfer.transfer, "ADD": transfer.transfer,
}  # fmt: skip


@dataclass(frozen=True)
class Means:
    """What a build works with: the store, who runs its steps, and the way to base images."""

    images: Images
    runner: Runner
    fetch: Fetch


def build(means: Means, request: BuildRequest, report: Report, cancel: threading.Event) -> Image:
    """Carry out a build; gives the image, named as the request says.

    Raises BuildError with the line for what the Containerfile is to blame for, Cancelled when
    `cancel` is set meanwhile.  Nothing stays of a build that fails but what the cache has.
    """
    request = _with_epoch(request)
    file = containerfile.parse(request.containerfile, request.name)
    made = plan.make(file, request)
    with ExitStack() as undo:
        images = means.images
        work = undo.enter_context(images.workspace())
        undo.callback(images.build_cache.flush)
        one = Shop(images, means.runner, request, made, report, means.fetch, work, undo)
        with _watched(one, cancel):
            return _Build(one, made).run()


def _with_epoch(request: BuildRequest) -> BuildRequest:
    """SOURCE_DATE_EPOCH may also come as an argument."""
    text = request.arguments.get(_EPOCH, "")
    if request.epoch_seconds is not None or not text:
        return request
    if not text.isdecimal() or len(text) > 11:
        raise Invalid(f"invalid {_EPOCH} '{text[:40]}'", hint="give seconds since 1970")
    return replace(request, epoch_seconds=int(text))


@contextmanager
def _watched(one: Shop, cancel: threading.Event) -> Iterator[None]:
    """Set the build's own stop when the caller cancels."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if cancel.wait(_WATCH_SECONDS):
                one.stop.set()
                return

    if cancel.is_set():
        raise Cancelled("the build was cancelled")
    thread = threading.Thread(target=watch, name="build-cancel", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()


class _Build:
    def __init__(self, one: Shop, made: Plan) -> None:
        self._shop = one
        self._plan = made
        self._guard = threading.Lock()
        self._started: dict[int, Future[State]] = {}
        self._assemblies: dict[int, Assembly] = {}
        self._numbers = {
            index: one.lines(plan.steps(node.stage, node.base))
            for index in made.needed
            for node in (made.nodes[index],)
        }
        self._last = one.lines(1)

    def run(self) -> Image:
        """Carry out what the target needs; then make it an image."""
        needed = self._plan.needed
        if len(needed) == 1:
            return self._image(self._stage(needed[0]))
        pool = ThreadPoolExecutor(min(_THREADS, len(needed)), "build-stage")
        try:
            work = [pool.submit(self._stage, index) for index in needed]
            return self._image(self._first_failure(work))
        finally:
            pool.shutdown(cancel_futures=True)

    def _first_failure(self, work: list[Future[State]]) -> State:
        """The target's state; what went wrong first is raised once all have stopped."""
        errors: list[BaseException] = []
        for future in work:
            error = future.exception()
            if error is not None:
                errors.append(error)
        real = [error for error in errors if not isinstance(error, Cancelled)]
        if errors:
            raise (real or errors)[0]
        return self._stage(self._plan.target)

    def _stage(self, index: int) -> State:
        """What a stage came to; carried out now unless somebody else does."""
        with self._guard:
            mine = index not in self._started
            future = self._started.setdefault(index, Future())
        if mine:
            try:
                future.set_result(self._carry_out(index))
            except BaseException as error:
                self._shop.stop.set()
                future.set_exception(error)
                raise
        return future.result()

    def _carry_out(self, index: int) -> State:
        one = self._shop
        with self._guard:
            assembly = one.undo.enter_context(one.images.assembly())
            self._assemblies[index] = assembly
        number = self._numbers.get(index) or one.lines(1)
        work = Stage(one, self._plan.nodes[index], self._stage, _HANDLERS)
        return work.build(assembly, number)

    def _image(self, state: State) -> Image:
        one, request = self._shop, self._shop.request
        assembly = self._assemblies[self._plan.target]
        name = f"exporting {', '.join(request.names)}" if request.names else "exporting to image"
        with one.line(self._last, name):
            one.check()
            layers = state.layers
            if request.squash:
                layers = self._squashed(state, assembly)
            return assembly.image(
                self._document(state, len(layers)), layers, request.names, request.annotations
            )

    def _squashed(self, state: State, assembly: Assembly) -> list[Layer]:
        base = self._base_layers()
        made = self._shop.path(make=True)
        upper = squash.squash([layer.root for layer in state.layers[base:]], made)
        return [*state.layers[:base], assembly.layer_from_upper(upper, self._shop.epoch)]

    def _base_layers(self) -> int:
        """How many layers the image at the bottom of the target's stages has."""
        node = self._plan.nodes[self._plan.target]
        while node.base.stage >= 0 and not node.replaced:
            node = self._plan.nodes[node.base.stage]
        if not node.base.image:
            return 0
        return len(self._shop.image(node.base.image, node.platform).diff_ids)

    def _document(self, state: State, layers: int) -> dict[str, Any]:
        """The image's configuration: labels of the request, times, the platform asked for."""
        one, draft = self._shop, state.draft
        if one.request.labels:
            draft.config["Labels"] = {**(draft.config.get("Labels") or {}), **one.request.labels}
        document = draft.document
        if one.request.platform:
            wanted = self._plan.platform
            document |= {"os": wanted.os, "architecture": wanted.architecture}
            document.pop("variant", None)
            if wanted.variant:
                document["variant"] = wanted.variant
        last = state.moment if one.epoch is None else shop.moment(one.epoch)
        document["created"] = last or one.now()
        for entry in document["history"]:
            entry.setdefault("created", document["created"])
        if one.request.squash:
            _squash_history(document["history"], layers, document["created"])
        return document


def _squash_history(history: list[dict[str, Any]], layers: int, created: str) -> None:
    """One line more stands for the one layer; the lines of the layers it holds are empty now."""
    full = 0
    for entry in history:
        if not entry.get("empty_layer"):
            full += 1
            if full >= layers:
                entry["empty_layer"] = True
    history.append({"created": created, "created_by": "", "comment": "squashed"})
