"""What is known of the hosts that can run an image: `gather`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proa.client.sdk import Client
from proa.compare.portability import programs
from proa.compare.record import Form, Need, Portability, Subject


@dataclass(frozen=True)
class Options:
    """What is asked: `kernels` are paths of kernels or of directories with some, () for those
    installed here, None for no trials on kernels.

    `seconds` is how long the program is watched, and left on each kernel, if it does not end.
    """

    subject: Subject
    kernels: tuple[str, ...] | None = None
    seconds: float = 3.0


def silent(line: str) -> None:
    """Tells nobody."""


def gather(
    client: Client,
    options: Options,
    forms: Sequence[Form],
    told: Callable[[str], None] = silent,
) -> Portability:
    """Which hosts can run it in which form; `told` hears what is being done."""
    told("reading the image's programs")
    instance = client.create(options.subject.name, network="none")
    try:
        found = programs.survey(instance.export())
    finally:
        instance.remove(force=True)
    stated = ".".join(map(str, found.kernel))
    answers = {form.key: stated for form in forms}
    return Portability(needs=(Need("kernel its programs ask for", found.kernel_of, answers),))
