"""One run of the subject's program under `proa-probe trace`: what it asked of the kernel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proa.client.connection import image_path
from proa.client.sdk import Client
from proa.compare import answers
from proa.compare.probe import Probe
from proa.compare.record import Subject
from proa.errors import Corrupt, Invalid
from proa.printable import clean

START_SECONDS = 60.0  # until the probe answers at all
SAID_MAXIMUM = 160


@dataclass(frozen=True)
class Call:
    """A system call that was made: how often, and the names of the errors it was answered with."""

    count: int
    errors: frozenset[str]


@dataclass(frozen=True)
class Seen:
    """What one run showed.

    `end` is `exit` or `signal` with its `code`, `time` when it still ran.  `paths` are files of
    /dev, /sys and /proc/sys it opened, `families` are numbers of socket(2), `namespaces` the flags
    of clone(2).  `foreign` counts calls of another processor's table.  `facts` is what the engine
    says of the instance (`Proa` of inspect).
    """

    end: str
    code: int
    kernel: str
    said: str
    listening: bool
    seconds: float
    processes: int
    foreign: int
    namespaces: int
    calls: Mapping[str, Call]
    paths: frozenset[str]
    file_systems: frozenset[str]
    families: frozenset[int]
    facts: Mapping[str, Any]

    def refused(self) -> frozenset[str]:
        """Calls the kernel, or a filter before it, did not let it make."""
        no = {"EPERM", "ENOSYS"}
        return frozenset(name for name, call in self.calls.items() if call.errors & no)


def watch(client: Client, subject: Subject, *words: str, seconds: float, **options: Any) -> Seen:
    """Run the subject's command for so long in a new instance; `options` as of `Client.create`.

    `words` are further ones of the probe.  Raises what starting an instance raises.
    """
    command = subject.command or command_of(client, subject.name)
    with Probe(client, subject.name, **options) as probe:
        limit = max(round(seconds), 1)
        lines = probe.ask(
            "trace", f"seconds={limit}", *words, "--", *command, seconds=limit + START_SECONDS
        )
        facts = probe.instance.inspect().get("Proa") or {}
    return read(lines, facts)


def command_of(client: Client, image: str) -> Sequence[str]:
    """What the image runs.  Raises Invalid when it does not say."""
    config = client.call("GET", image_path(image, "/json"))["Config"]
    command = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    if not command:
        raise Invalid(f"the image '{image}' names no command", hint="give one after --")
    return [str(word) for word in command]


def read(lines: Sequence[answers.Line], facts: Mapping[str, Any]) -> Seen:
    """The lines of `proa-probe trace`.  Raises Corrupt when the last one is missing."""
    for line in lines:
        answers.refused(line)
    last = next((line for line in lines if "end" in line), None)
    if last is None:
        raise Corrupt("the probe did not say how the program ended")
    calls = {
        answers.text(line, "call"): Call(
            int(answers.number(line, "count")),
            frozenset(answers.text(line, "errors").split()),
        )
        for line in lines
        if "call" in line
    }
    return Seen(
        end=answers.text(last, "end"),
        code=int(answers.number(last, "code")),
        kernel=answers.text(last, "kernel"),
        said=_last_line(lines),
        listening=last.get("listening") is True,
        seconds=answers.number(last, "ns") / 1e9,
        processes=int(answers.number(last, "processes")),
        foreign=int(answers.number(last, "foreign")),
        namespaces=int(answers.number(last, "namespaces")),
        calls=calls,
        paths=_texts(lines, "path"),
        file_systems=_texts(lines, "file-system"),
        families=frozenset(
            int(answers.number(line, "socket")) for line in lines if "socket" in line
        ),
        facts=facts,
    )


def _texts(lines: Sequence[answers.Line], key: str) -> frozenset[str]:
    return frozenset(answers.text(line, key) for line in lines if key in line)


def _last_line(lines: Sequence[answers.Line]) -> str:
    said = next((line["said"] for line in lines if isinstance(line.get("said"), str)), "")
    written = [text for text in said.splitlines() if text.strip()]
    return clean(written[-1], SAID_MAXIMUM) if written else ""
