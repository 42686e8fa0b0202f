"""From what the probe says inside to an answer: some of it only means something beside the host.

Three rules.  What equals the host's is open, however little it is.  What answers from a kernel that
is not the host's is at most `partly`: an attacker gains that kernel, which only this instance has,
and then stands before the machine.  And what nobody found out counts as nothing found closed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proa.compare import answers
from proa.compare.isolation import host
from proa.compare.record import Answer

BEHIND = 0.75  # what an opening is worth closed when it leads into a kernel of its own
MACHINE = 0.5
UPTIME_SECONDS = 5.0
SLACK_PROCESSES = 1000  # started on the host between asking inside and here
# PCI vendor and device of what guests have escaped by (the CVEs are in the inquiry).
CARDS = {
    "v000010ECd00008139": "rtl8139",
    "v00001022d00002000": "pcnet",
    "v00001013d000000B8": "cirrus",
    "v00001000d00000012": "lsi53c895a",
    "v00008086d00007020": "usb-uhci",
    "v00008086d000024CD": "usb-ehci",
    "v0000106Bd0000003F": "usb-ohci",
}


@dataclass(frozen=True)
class Case:
    """One form's answers with what they are judged by; `pid` is of its process on the host.

    `translated` are programs of another processor on the host's kernel: the translator refuses
    calls it does not know, which keeps nobody from bringing a program that needs none.
    """

    lines: Mapping[str, answers.Line]
    before: host.Host
    after: host.Host
    pid: int = 0
    translated: bool = False

    def text(self, key: str, name: str = "value") -> str:
        """A fact of a line, empty when there is none."""
        return answers.text(self.lines.get(key, {}), name)

    @property
    def apart(self) -> bool:
        """Whether another kernel than the host's was seen to answer."""
        boot = self.text("kernel.identity", "boot")
        return bool(boot and self.before.boot) and boot != self.before.boot

    def said(self, key: str) -> Answer:
        """What the probe itself found."""
        line = self.lines.get(key)
        if line is None:
            return Answer("not tried", "the probe said nothing of it", 0.0)
        outcome = answers.text(line, "outcome")
        if outcome not in ("closed", "partly", "open"):
            return Answer("not tried", answers.text(line, "evidence"), 0.0)
        evidence = answers.text(line, "evidence")
        if self.translated and not self.apart and "ENOSYS" in evidence:
            return Answer("not tried", f"{evidence}, of the translator", 0.0)
        return Answer(outcome, evidence, round(min(answers.number(line, "score"), 1.0), 2))


def said(case: Case, key: str) -> Answer:
    """As found inside, whichever kernel it is."""
    return case.said(key)


def behind(case: Case, key: str) -> Answer:
    """As found inside; an opening in a kernel of its own is partly one."""
    found = case.said(key)
    if not case.apart or found.outcome not in ("open", "partly"):
        return found
    evidence = f"in a kernel of its own: {found.evidence}"
    return Answer("partly", evidence, max(found.score, BEHIND))


def own(case: Case, key: str) -> Answer:
    """As found inside; of a kernel of its own it tells nothing about the host."""
    found = case.said(key)
    if case.apart and found.outcome in ("open", "partly"):
        return Answer("closed", f"its own kernel's: {found.evidence}", 1.0)
    return found


def calls(case: Case, key: str) -> Answer:
    """How many get through to the host's kernel."""
    found = case.said(key)
    if case.apart and found.outcome != "closed":
        return Answer("closed", f"none: {found.evidence} of its own", 1.0)
    return found


def identity(case: Case, key: str) -> Answer:
    """Whose kernel it is."""
    boot, release = case.text(key, "boot"), case.text(key, "release")
    if not boot or not case.before.boot:
        return Answer("not tried", f"Linux {release}, but no boot id to compare", 0.0)
    shown = f"Linux {release}, boot {boot[:8]}"
    theirs = f"{case.before.kernel}, boot {case.before.boot[:8]}"
    if case.apart:
        return Answer("closed", f"{shown}; the host's is {theirs}", 1.0)
    return Answer("open", f"{shown}: the host's own", 0.0)


def process(case: Case, key: str) -> Answer:
    """What the host's kernel runs for it, seen from the host."""
    found = host.status(case.pid) if case.pid else {}
    if not found:
        return Answer("not tried", "its process on the host is not known", 0.0)
    user = found.get("Uid", "0").split()[0]
    walls = (
        (user != "0", f"user {user}"),
        (found.get("NoNewPrivs") == "1", f"NoNewPrivs {found.get('NoNewPrivs')}"),
        (found.get("Seccomp") == "2", f"Seccomp {found.get('Seccomp')}"),
    )
    score = round(sum(stands for stands, _ in walls) / len(walls), 2)
    evidence = f"'{found.get('Name')}' is " + ", ".join(words for _, words in walls)
    return Answer(grade(score), evidence, score)


def machine(case: Case, key: str) -> Answer:
    """Devices somebody plays for it: a host's program behind each."""
    pci, virtio = case.text(key, "pci"), case.text(key, "virtio")
    if not case.apart:
        return case.said(key) if not pci else Answer("closed", "it has no machine of its own", 1.0)
    return Answer("partly", f"{pci} devices on PCI, {virtio} of virtio, all emulated", MACHINE)


def cards(case: Case, key: str) -> Answer:
    """Emulated devices with a history."""
    if not case.apart:
        return machine(case, "devices.machine")
    seen = case.text("devices.machine", "cards")
    found = sorted({name for ids, name in CARDS.items() if f"pci:{ids}" in seen})
    if "..." in seen or not seen:
        return Answer("not tried", "the list of its devices is not whole", 0.0)
    if found:
        return Answer("open", f"it has {', '.join(found)}", 0.0)
    return Answer("closed", "none of them is in its machine", 1.0)


def namespaces(case: Case, key: str) -> Answer:
    """How many of the host's it is in."""
    if case.apart:
        return Answer("closed", "all are of another kernel", 1.0)
    numbers = {name: case.text(key, name) for name in host.NAMESPACES}
    same = [name for name, value in numbers.items() if value == case.before.namespaces.get(name)]
    if not any(numbers.values()):
        return case.said(key)
    if not same:
        return Answer("closed", "all are its own", 1.0)
    score = round(1 - len(same) / len(numbers), 2)
    return Answer(grade(score), f"the host's: {', '.join(same)}; its own: the rest", score)


def mounts(case: Case, key: str) -> Answer:
    """As found inside; in a machine other disks are its own, only what is served is not."""
    if case.apart and case.said(key).outcome in ("open", "partly") and not case.text(key, "served"):
        return Answer("closed", "no directory is served from outside", 1.0)
    return case.said(key)


def equal(case: Case, key: str) -> Answer:
    """Open when a value, or one of a list, is the host's."""
    value, theirs = case.text(key), case.before.values.get(key, "")
    if not value:
        return case.said(key)
    shared = set(value.split(", ")) & set(theirs.split(", "))
    if shared or theirs.startswith(value):
        return Answer("open", f"'{shorten(value)}', as on the host", 0.0)
    return Answer("closed", f"'{shorten(value)}'; the host's: '{shorten(theirs)}'", 1.0)


def uptime(case: Case, key: str) -> Answer:
    """Open when it is the host's, but for what lies between the two questions."""
    try:
        seconds = float(case.text(key).split()[0])
    except (ValueError, IndexError):
        return case.said(key)
    earliest = case.before.uptime_seconds - UPTIME_SECONDS
    if earliest <= seconds <= case.after.uptime_seconds + UPTIME_SECONDS:
        return Answer("open", "as long as the host", 0.0)
    return Answer("closed", f"{seconds:.0f} s, unlike the host", 1.0)


def activity(case: Case, key: str) -> Answer:
    """Open when it counts the host's processes."""
    try:
        started = int(case.text(key))
    except ValueError:
        return case.said(key)
    earliest = case.before.started - SLACK_PROCESSES
    if not case.apart and earliest <= started <= case.after.started + SLACK_PROCESSES:
        return Answer("open", "every process started on the host is counted", 0.0)
    return Answer("closed", f"{started} processes: its own kernel's count", 1.0)


def paths(case: Case, key: str) -> Answer:
    """Open when a source exists on the host under the same name."""
    named = [word for word in case.text(key).split(", ") if word.count("/") > 1]
    found = [word for word in named if not word.startswith("/proc/") and case.before.has(word)]
    if key in case.lines and not found:
        return Answer("closed", "no source of a mount is a path of the host", 1.0)
    return Answer("open", f"of the host: {', '.join(found)}", 0.0) if found else case.said(key)


def processes(case: Case, key: str) -> Answer:
    """Open in the host's process namespace."""
    inside = case.text("privileges.namespaces", "pid")
    count = case.text(key)
    if not inside or not count:
        return case.said(key)
    if not case.apart and inside == case.before.namespaces["pid"]:
        return Answer("open", f"{count} processes in the host's own namespace", 0.0)
    return Answer("closed", f"{count}, all of its own", 1.0)


def grade(score: float) -> str:
    """The outcome for a share of walls that stand."""
    return "closed" if score >= 1 else "partly" if score > 0 else "open"


def shorten(text: str, limit: int = 60) -> str:
    """Text that fits a table."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


JUDGES: Mapping[str, Callable[[Case, str], Answer]] = {
    "said": said, "behind": behind, "own": own, "calls": calls, "identity": identity,
    "process": process, "machine": machine, "cards": cards, "namespaces": namespaces,
    "mounts": mounts,
    "equal": equal, "uptime": uptime, "activity": activity, "paths": paths,
    "processes": processes,
}  # fmt: skip
