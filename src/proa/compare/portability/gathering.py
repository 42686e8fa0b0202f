"""What is known of the hosts that can run an image: `gather`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proa.client.sdk import Client
from proa.compare.portability import hosts, programs, trials
from proa.compare.portability.watching import Seen
from proa.compare.record import Form, Portability, Subject, Trial
from proa.errors import Invalid, ProaError
from proa.printable import clean

IMAGE = "image"
NOTHING: Mapping[str, Any] = {}
X86 = ("linux/amd64", "amd64")


@dataclass(frozen=True)
class Options:
    """What is asked: `kernels` are paths of kernels or of directories with some, () for those
    installed here, None for no trials on kernels.

    `seconds` is how long a program that does not end is watched, `create` are further options of
    `Client.create` for its instances, which have no network here.
    """

    subject: Subject
    kernels: tuple[str, ...] | None = None
    seconds: float = 2.0
    create: Mapping[str, Any] = field(default_factory=dict)

    def how(self, form: Form, machine: Mapping[str, Any] = NOTHING) -> dict[str, Any]:
        """Options of `Client.create` for an instance in a form, with more of a machine."""
        rest = {key: value for key, value in self.create.items() if key not in ("ports", "machine")}
        both = {**self.create.get("machine", {}), **machine}
        return {**rest, "isolation": form.isolation, "network": "none", "machine": both}


def silent(line: str) -> None:
    """Tells nobody."""


def gather(
    client: Client,
    options: Options,
    forms: Sequence[Form],
    told: Callable[[str], None] = silent,
) -> Portability:
    """Which hosts can run it in which form; `told` hears what is being done.

    Raises Invalid for a path of `kernels` without one, before anything else is done.
    """
    image = options.subject.kind == IMAGE
    kernels = kernels_for(options.subject.kind, options.kernels)
    runs = Runs(client, options, told)
    if image:
        for form in forms:
            if not form.only_start:
                runs.in_form(form)
        for form in forms:
            if form.isolation == hosts.VM and not form.only_start:
                runs.on_processors(form)
                runs.on_kernels(form, kernels)
    found = runs.programs() if image else None
    evidence = hosts.Evidence(found, runs.seen, runs.level, client.call("GET", "/proa/isolations"))
    return Portability(hosts.needs(evidence, forms), tuple(runs.tried))


def kernels_for(kind: str, named: tuple[str, ...] | None) -> Sequence[Path]:
    """The kernels that are to be tried.  Raises Invalid when there are none, or no sense in it."""
    if named is None:
        return ()
    if kind != IMAGE:
        raise Invalid("a disk boots the kernel it holds", hint="leave --kernels out")
    return trials.kernels(named)


@dataclass
class Runs:
    """The runs there were, by form, and what came of them."""

    client: Client
    options: Options
    told: Callable[[str], None]
    seen: dict[str, Seen] = field(default_factory=dict)
    tried: list[Trial] = field(default_factory=list)
    level: str = ""  # of processor on which it was seen to work

    def in_form(self, form: Form) -> None:
        """Watch the program in one form; what it does in the first one is taken as usual."""
        self.told(f"watching what it asks of the kernel: {form.title}")
        usual = next(iter(self.seen.values()), None)
        subject, seconds = self.options.subject, self.options.seconds
        try:
            how = self.options.how(form)
            seen = trials.in_form(self.client, subject, how, seconds, usual)
        except ProaError as error:
            said = clean(error.message)
            self.tried.append(Trial(form.kernel, form.key, works=False, said=said))
            return
        self.seen[form.key] = seen
        works = trials.works(seen, usual or seen)
        self.tried.append(Trial(seen.kernel, form.key, works, trials.told(seen)))

    def on_processors(self, form: Form) -> None:
        """Boot it on an emulated processor of each level from the lowest, until it works."""
        if self.options.subject.platform not in X86:
            return
        for level in trials.MODELS:
            if self._on(trials.Other.processor(level), form):
                self.level = level
                return

    def on_kernels(self, form: Form, kernels: Sequence[Path]) -> None:
        """Boot it on each kernel."""
        for kernel in kernels:
            self._on(trials.Other.kernel(kernel), form)

    def _on(self, other: trials.Other, form: Form) -> bool:
        """Boot it elsewhere, if it was seen to run well at all."""
        usual = next(iter(self.seen.values()), None)
        if usual is None or not trials.works(usual, usual):
            return False
        self.told(f"trying {other.name}")
        where = trials.Where(other.name, form.key, self.options.how(form, other.machine))
        trial = trials.on_other(self.client, self.options.subject, where, usual)
        self.tried.append(trial)
        return trial.works

    def programs(self) -> programs.Found:
        """What the image's files say; an instance of it is made for that, and never started."""
        self.told("reading its programs")
        subject = self.options.subject
        with contextlib.ExitStack() as stack:
            labels = self.options.create.get("labels", {})
            instance = self.client.create(subject.name, ["true"], network="none", labels=labels)
            stack.callback(instance.remove, force=True)
            return programs.survey(instance.export())
