"""The subject tried: in each form here, and as a vm on other kernels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proa.client.sdk import Client
from proa.compare.portability.watching import Seen, watch
from proa.compare.record import Subject, Trial
from proa.errors import Invalid, ProaError
from proa.printable import clean

INSTALLED = Path("/boot")
LONG_SECONDS = 20.0  # to end or to listen, under an emulated processor and watched
KERNEL_SECONDS = 5.0  # to show that it stays
# By level of the x86-64 psABI: a model that has all of it and nothing of the next one.
MODELS = {"x86-64": "qemu64", "x86-64-v2": "Nehalem", "x86-64-v3": "Haswell"}
UNTIL = "until=listen"
CANNOT_RUN, NOT_FOUND = 126, 127


def kernels(named: Sequence[str]) -> list[Path]:
    """The kernels at these paths: a vmlinuz, a directory with some, or one of unpacked packages.

    Without paths those installed.  Raises Invalid where there is none.
    """
    found: dict[Path, None] = {}
    for path in map(Path, named or (str(INSTALLED),)):
        here = list(_kernels_at(path))
        if not here:
            raise Invalid(
                f"no kernel at '{path}'",
                hint="name a vmlinuz, or a directory with boot/vmlinuz-RELEASE and lib/modules",
            )
        found |= dict.fromkeys(here)
    return list(found)


def _kernels_at(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path.resolve()
        return
    for pattern in ("vmlinuz-*", "boot/vmlinuz-*", "*/boot/vmlinuz-*"):
        yield from sorted(item.resolve() for item in path.glob(pattern) if item.is_file())


def in_form(
    client: Client,
    subject: Subject,
    options: Mapping[str, Any],
    seconds: float,
    usual: Seen | None = None,
) -> Seen:
    """The subject's command watched in one form; when it `usual`ly listens, until it does."""
    if usual is not None and usual.listening:
        return watch(client, subject, UNTIL, seconds=LONG_SECONDS, **options)
    return watch(client, subject, seconds=seconds, **options)


@dataclass(frozen=True)
class Other:
    """A vm of the subject on something else than usual: `machine` as the API takes it."""

    name: str
    machine: Mapping[str, str]

    @classmethod
    def kernel(cls, path: Path) -> Other:
        """On a kernel of this host's files."""
        return cls(path.name, {"Kernel": str(path), "Start": "boot"})

    @classmethod
    def processor(cls, level: str) -> Other:
        """On a processor of one of MODELS, emulated: KVM would let it use what the host's has."""
        model = MODELS[level]
        return cls(
            f"{level} processor (QEMU's '{model}')",
            {"Cpu": model, "Accelerator": "tcg", "Start": "boot"},
        )


@dataclass(frozen=True)
class Where:
    """Such a vm in one form: what it is called, and created with."""

    name: str
    form: str
    options: Mapping[str, Any]


def on_other(client: Client, subject: Subject, where: Where, usual: Seen) -> Trial:
    """The subject booted as a vm elsewhere; it works when it does there what is `usual`."""
    words = (UNTIL,) if usual.listening else ()
    seconds = LONG_SECONDS if usual.end != "time" else KERNEL_SECONDS
    kernel = str(where.options["machine"].get("Kernel", ""))
    try:
        seen = watch(client, subject, *words, seconds=seconds, **where.options)
    except ProaError as error:
        said = error.message.replace(kernel, where.name) if kernel else error.message
        return Trial(where.name, where.form, works=False, said=clean(said))
    name = seen.kernel if kernel else f"{seen.kernel}, {where.name}"
    return Trial(name, where.form, works=works(seen, usual), said=told(seen))


def works(seen: Seen, usual: Seen) -> bool:
    """Whether a run came to what is usual, and that is no failure to run at all."""
    ran = seen.end != "signal" and seen.code not in (CANNOT_RUN, NOT_FOUND)
    if usual.listening:
        return ran and seen.listening
    return ran and (seen.end, seen.code) == (usual.end, usual.code)


def told(seen: Seen) -> str:
    """A run in words."""
    missing = sorted(name for name, call in seen.calls.items() if "ENOSYS" in call.errors)
    stayed = "it listens" if seen.listening else f"it still runs after {seen.seconds:.0f} s"
    ends = {"exit": f"exit code {seen.code}", "signal": f"ended by signal {seen.code}"}
    parts = [
        ends.get(seen.end, stayed),
        *([f"not there: {', '.join(missing)}"] if missing else []),
        *([f"'{seen.said}'"] if seen.said else []),
    ]
    return "; ".join(parts)
