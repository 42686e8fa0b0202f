"""What each form asks of a host: rows of needs, each with the evidence for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proa.compare.portability import kernel_use
from proa.compare.portability.programs import Found
from proa.compare.portability.watching import Seen
from proa.compare.record import Form, Need
from proa.host.features import MINIMUM_KERNEL

NO_LEVEL = "none was found"
NOT_SEEN = "not seen: it was not run in this form"
VM = "vm"


@dataclass(frozen=True)
class Evidence:
    """All that was found: of the image's files (None: not read), of runs by form, the lowest
    level of processor on which it was seen to work (or empty), and what the engine says of the
    kinds of instances it can make (`GET /proa/isolations`)."""

    found: Found | None
    seen: Mapping[str, Seen]
    level: str
    isolations: Sequence[Mapping[str, Any]]


Row = Callable[[Evidence, Form], str]


def needs(evidence: Evidence, forms: Sequence[Form]) -> tuple[Need, ...]:
    """The rows, for the forms that were run for more than their start."""
    return tuple(_rows(evidence, [form for form in forms if not form.only_start]))


def _rows(evidence: Evidence, forms: Sequence[Form]) -> Iterator[Need]:
    def row(what: str, how: str, answer: Row) -> Need:
        return Need(what, how, {form.key: answer(evidence, form) for form in forms})

    if evidence.found is not None:
        yield from _of_files(evidence.found, row)
    yield row("kernel of the host", "what the engine's parts ask for", _host_kernel)
    yield row("the engine", "asked whether it can make such an instance here", _engine)
    yield row("memory", "inspect, of the instance that was watched", _memory)
    watched = "its system calls, watched from its first instruction"
    yield row("kernel features seen used", watched, _features)
    yield row("newest system call seen", f"{watched}; since: syscalls(2)", _newest)
    yield row("system calls refused", f"{watched}: EPERM or ENOSYS", _refused)


def _of_files(found: Found, row: Callable[[str, str, Row], Need]) -> Iterator[Need]:
    count = f"{found.count} programs and libraries"
    yield row("processor", f"the ELF headers of {count}", _processor)
    if found.levelled or found.variants or "amd64" in found.architectures:
        yield row(
            "processor level",
            f"x86 property notes, which {found.levelled} of {count} have"
            + (f"; the highest is of '{found.level_of}'" if found.level else ""),
            _level,
        )
        yield row(
            "processor level it worked on",
            "booted as a vm on emulated processors, from the oldest, until it worked",
            lambda evidence, form: evidence.level or NO_LEVEL,
        )
    yield row(
        "kernel its programs ask for",
        f"ABI notes, which {found.stating} of {count} have"
        + (f"; the highest is of '{found.kernel_of}'" if found.kernel else ""),
        _stated_kernel,
    )
    if found.modules:
        yield row("kernel modules in it", "files below lib/modules", _modules)


def _processor(evidence: Evidence, form: Form) -> str:
    found = evidence.found
    if found is None or not found.architectures:
        return "any: no program states one"
    counts = found.architectures.most_common()
    names = ", ".join(name for name, _ in counts)
    if len(counts) > 1:
        names = ", ".join(f"{name} ({count})" for name, count in counts)
    if form.isolation == VM:
        return f"{names} with KVM; any with QEMU's emulation"
    return f"{names}; another through qemu-user"


def _level(evidence: Evidence, form: Form) -> str:
    found = evidence.found
    if found is None:
        return "not stated"
    text = f"{found.level} or better" if found.level else "not stated"
    if found.variants:
        text += f" (also carries {', '.join(sorted(found.variants))}, used where it fits)"
    emulated = form.isolation == VM and form.accelerator == "tcg"
    return f"{text}; emulated here, whatever the host's is" if emulated else text


def _stated_kernel(evidence: Evidence, form: Form) -> str:
    found = evidence.found
    if found is None or not found.kernel:
        return "not stated"
    version = ".".join(map(str, found.kernel))
    if form.isolation == VM:
        kernel = evidence.seen[form.key].kernel if form.key in evidence.seen else form.kernel
        brought = f", here {kernel}" if kernel else ""
        return f"Linux {version}, of the kernel the vm brings{brought}"
    return f"Linux {version}, of the host"


def _modules(evidence: Evidence, form: Form) -> str:
    found = evidence.found
    releases = ", ".join(sorted(found.modules)) if found is not None else ""
    if form.isolation == VM:
        return f"for {releases}; loaded where the vm's kernel is that one"
    return f"for {releases}; a container cannot load them"


def _host_kernel(evidence: Evidence, form: Form) -> str:
    if form.isolation == VM:
        return "one that runs QEMU; none older than this host's was tried"
    return f"Linux {'.'.join(map(str, MINIMUM_KERNEL))} (overlay over mounts with mapped ids)"


def _engine(evidence: Evidence, form: Form) -> str:
    for item in evidence.isolations:
        if item.get("Name") == form.isolation:
            reasons = "; ".join(map(str, item.get("Reasons") or ()))
            return "can be made here" if item.get("Available") else f"not here: {reasons}"
    return "no such isolation"


def _memory(evidence: Evidence, form: Form) -> str:
    if form.isolation != VM:
        return "what its programs use"
    facts = evidence.seen[form.key].facts if form.key in evidence.seen else {}
    size = facts.get("RamMib")
    emulated = "; KVM would be faster" if facts.get("Accelerator") == "tcg" else ""
    return f"up to {size} MiB and QEMU's own{emulated}" if size else NOT_SEEN


def _of_run(answer: Callable[[Seen], str]) -> Row:
    def row(evidence: Evidence, form: Form) -> str:
        seen = evidence.seen.get(form.key)
        return answer(seen) if seen is not None else NOT_SEEN

    return row


def _newest_of(seen: Seen) -> str:
    newest = kernel_use.newest(seen)
    if newest is None:
        return "none newer than Linux 3.2"
    name, since = newest
    missing = "ENOSYS" in seen.calls[name].errors if name in seen.calls else False
    went_on = "; refused, and it went on" if missing else ""
    return f"{name}, since Linux {since[0]}.{since[1]}{went_on}"


_features = _of_run(lambda seen: "; ".join(kernel_use.features(seen)) or "none but the usual")
_newest = _of_run(_newest_of)
_refused = _of_run(
    lambda seen: ", ".join(sorted(kernel_use.named(call) for call in seen.refused())) or "none"
)
