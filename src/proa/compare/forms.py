"""The forms a comparison knows, and how an instance of each is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proa.compare.record import Form
from proa.errors import Invalid

CONTAINER, VM, VM_BOOT = "container", "vm", "vm-boot"
MAXIMUM = 6
TABLE: dict[str, tuple[Form, Mapping[str, Any]]] = {
    CONTAINER: (Form(CONTAINER, "Container", "container"), {}),
    VM: (Form(VM, "VM", "vm"), {}),
    VM_BOOT: (Form(VM_BOOT, "VM, full boot", "vm", only_start=True), {"Start": "boot"}),
}
DEFAULTS = {"image": (CONTAINER, VM, VM_BOOT), "disk": (CONTAINER, VM)}


@dataclass(frozen=True)
class Way:
    """A form, and what an instance in it is created with: an image (none for a disk), options."""

    form: Form
    image: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The form's."""
        return self.form.key


def ways(names: Sequence[str], image: str, create: Mapping[str, Any]) -> list[Way]:
    """A way for each form; one that is named again gets a key of its own.

    Raises Invalid for an unknown form.
    """
    made: list[Way] = []
    for number, name in enumerate(names):
        if name not in TABLE:
            raise Invalid(f"'{name}' is no form", hint=f"one of: {', '.join(TABLE)}")
        form, machine = TABLE[name]
        if again := list(names[:number]).count(name):
            title = f"{form.title} ({again + 1})"
            form = replace(form, key=f"{name}-{again + 1}", title=title)
        made.append(Way(form, image, options(form, machine, create)))
    return made


def options(form: Form, machine: Mapping[str, Any], create: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `Client.create` for a form."""
    both = {**create.get("machine", {}), **machine}
    return {**create, "isolation": form.isolation, **({"machine": both} if both else {})}
