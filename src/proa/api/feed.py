"""Long work whose progress is the answer: Docker's stream of JSON messages.

What fails before anything was said is an error with a status; after that it is a message of its
own, as in Docker.  Quick steps of one layer become one message per tenth of a second.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from proa.api.answer import Streamed, json_bytes
from proa.api.errors import message_of
from proa.errors import Cancelled, ProaError, Unauthorized

LOG = logging.getLogger("proa.api")
INTERVAL_SECONDS = 0.1
Message = dict[str, Any]


class Said(Protocol):
    """A step of progress (the engine's `Step`)."""

    @property
    def status(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def current(self) -> int: ...

    @property
    def total(self) -> int: ...


class Feed:
    """What work hands its steps to, from any thread; `told` ends it when the client has left."""

    def __init__(self, held_back: int = 1) -> None:
        """The first `held_back` messages do not begin the answer: what fails then has a status."""
        self.left = threading.Event()  # set once nobody wants the rest
        self._held_back = held_back
        self._changed = threading.Condition()
        self._waiting: dict[object, Message] = {}
        self._count = 0
        self._urgent = False
        self._ended = False
        self._error: BaseException | None = None

    def told(self, step: Said) -> None:
        """A step was made.  Raises Cancelled when nobody wants the rest."""
        moving = bool(step.id and step.total)
        self.say(_message(step), (step.id, step.status) if moving else None)

    def say(self, message: Message, key: object = None) -> None:
        """Any message; it takes the place of one with its key that was not sent yet."""
        self.check()
        with self._changed:
            self._count += 1
            self._waiting[self._count if key is None else key] = message
            self._urgent = self._urgent or key is None
            self._changed.notify_all()

    def check(self) -> None:
        """Raise Cancelled when nobody wants the rest."""
        if self.left.is_set():
            raise Cancelled("the client has left")

    def cancelled(self) -> bool:
        """Whether nobody wants the rest."""
        return self.left.is_set()

    def run(self, work: Callable[[Feed], Iterable[Message]]) -> None:
        """Do the work; the messages it ends with are sent last."""
        try:
            for message in work(self):
                self.say(message)
        except BaseException as error:
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def begin(self) -> None:
        """Wait until the answer can begin.  Raises what the work raised before that."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._count > self._held_back)
            error = self._error if self._count <= self._held_back else None
        # A status of 401 would make docker's client ask for a login: that goes into the stream.
        if error is not None and not isinstance(error, Unauthorized):
            raise error

    def pieces(self) -> Iterator[bytes | None]:
        """The answer's body."""
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._ended or self._urgent, INTERVAL_SECONDS)
                    messages, self._waiting = list(self._waiting.values()), {}
                    ended, self._urgent = self._ended, False
                yield b"".join(map(json_bytes, messages)) or None
                if ended:
                    break
            if self._error is not None:
                yield json_bytes(_failure(self._error))
        finally:
            self.left.set()


def stream(work: Callable[[Feed], Iterable[Message]], name: str, held_back: int = 1) -> Streamed:
    """An answer that follows `work`, which runs in a thread of this name."""
    feed = Feed(held_back)
    threading.Thread(target=feed.run, args=(work,), name=name, daemon=True).start()
    feed.begin()
    return Streamed(feed.pieces())


def _message(step: Said) -> Message:
    if not step.id:
        return {"status": step.status}
    if not _is_layer(step.id):
        return {"status": step.status, "id": step.id}
    detail = {"current": step.current, "total": step.total} if step.total else {}
    return {"status": step.status, "progressDetail": detail, "id": step.id}


def _is_layer(identity: str) -> bool:
    return len(identity) == 12 and set(identity) <= set("0123456789abcdef")


def _failure(error: BaseException) -> Message:
    """`code` beside Docker's fields is for our own clients."""
    if not isinstance(error, ProaError):
        LOG.error("an answer ended early", exc_info=error)
        error = ProaError("internal error", hint="the engine's log says more")
    text = message_of(error)
    return {"errorDetail": {"message": text}, "error": text, "code": error.code}
