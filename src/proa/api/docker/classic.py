"""What happens in a build, in the words of Docker's classic builder."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from proa.api.feed import Message
from proa.engine.building import Event, Output, Transfer

HELD_BYTES = 1 << 20  # of one step's output, while another's is told
_STEP = re.compile(r"\[(?:\S+ )?\s*(\d+)/(\d+)\] (.*)", re.DOTALL)
_WORDS = {"cached": " ---> Using cache\n", "cancelled": " ---> Cancelled\n"}


@dataclass
class _Step:
    """One vertex: what is to be said of it, and whether it has ended."""

    waiting: list[Message] = field(default_factory=list)
    held: int = 0
    ended: bool = False
    decoders: dict[int, codecs.IncrementalDecoder] = field(default_factory=dict)


class Classic:
    """Turns events into messages; steps that go on at once are told one after the other."""

    def __init__(self, say: Callable[[Message], None], quiet: bool = False) -> None:
        self._say = say
        self._quiet = quiet
        self._steps: dict[int, _Step] = {}
        self._told: int | None = None  # the step that is told now
        self.said = False

    def told(self, event: Event) -> None:
        """An event happened.  Raises what `say` raises."""
        step = self._steps.setdefault(event.number, _Step())
        if self._told is None:
            self._told = event.number
        for message in self._messages(step, event):
            step.waiting.append(message)
            step.held += len(message.get("stream", ""))
        if not isinstance(event, (Output, Transfer)) and event.state != "started":
            step.ended = True
        if event.number == self._told or step.held > HELD_BYTES:
            self._send(step)
        if step.ended:
            self._advance()

    def flush(self) -> None:
        """Say whatever is held back."""
        for number in sorted(self._steps):
            self._send(self._steps[number])

    def _advance(self) -> None:
        """Tell the next steps, once the one that was told has ended."""
        while self._told is not None and self._steps[self._told].ended:
            self._send(self._steps.pop(self._told))
            self._told = min(self._steps, default=None)
            if self._told is not None:
                self._send(self._steps[self._told])

    def _send(self, step: _Step) -> None:
        waiting, step.waiting, step.held = step.waiting, [], 0
        for message in waiting:
            self.said = True
            if not self._quiet:
                self._say(message)

    def _messages(self, step: _Step, event: Event) -> list[Message]:
        if isinstance(event, Output):
            decoder = step.decoders.setdefault(
                event.stream, codecs.getincrementaldecoder("utf-8")("replace")
            )
            text = decoder.decode(event.data)
            return [{"stream": text}] if text else []
        if isinstance(event, Transfer):
            return []
        if event.state == "started":
            match = _STEP.fullmatch(event.name)
            return [{"stream": f"Step {match[1]}/{match[2]} : {match[3]}\n"}] if match else []
        return [{"stream": _WORDS[event.state]}] if event.state in _WORDS else []
