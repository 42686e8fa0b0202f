"""What is compared: an image's name made into all that is known of it, and a way for each form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from proa.client.connection import image_path
from proa.client.sdk import Client
from proa.compare import forms
from proa.compare.fleet import Fleet
from proa.compare.forms import Way
from proa.compare.gathered import Gathered
from proa.compare.options import Options
from proa.compare.record import Subject
from proa.errors import Invalid, ProaError


def subject(client: Client, options: Options) -> Subject:
    """The image's, or the disk's.  Raises ImageNotFound."""
    if options.kind == "disk":
        return Subject("disk", options.name, "", "linux/amd64", (), options.port)
    details: dict[str, Any] = client.call("GET", image_path(options.name, "/json"))
    config = details.get("Config") or {}
    usual = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    entrypoint = options.create.get("entrypoint")
    head = config.get("Entrypoint") if entrypoint is None else entrypoint
    command = [*(head or ()), *options.command] if options.command or entrypoint else usual
    if not command:
        raise Invalid(
            f"the image '{options.name}' has no command", hint="name one: proa compare IMAGE -- CMD"
        )
    names = details.get("RepoTags") or [options.name]
    return Subject(
        kind="image",
        name=options.name if options.name in names else str(names[0]),
        id=str(details["Id"]),
        platform=f"{details.get('Os', 'linux')}/{details.get('Architecture', '')}",
        command=tuple(str(word) for word in command),
        port=options.port or first_port(config.get("ExposedPorts") or (), options),
    )


def first_port(exposed: Sequence[str], options: Options) -> int:
    """The TCP port that is asked: a published one, else the lowest the image exposes, else 0."""
    published = [int(port) for port in options.create.get("ports", ())]
    known = [int(port) for port, _, kind in (p.partition("/") for p in exposed) if kind != "udp"]
    return next(iter(published or sorted(known)), 0)


def ways(fleet: Fleet, options: Options, found: Subject, gathered: Gathered) -> list[Way]:
    """How each form is made.  An image made of a disk, for its container, goes with the fleet."""
    names = options.forms or forms.DEFAULTS[found.kind]
    if found.kind == "image":
        return forms.ways(names, options.name, options.create)
    made: list[Way] = []
    for way in forms.ways(names, "", options.create):
        if way.form.isolation == "vm":
            machine = {**way.options.get("machine", {}), "Disk": options.name}
            machine.pop("Start", None)  # a machine always boots
            made.append(replace(way, options={**way.options, "machine": machine}))
        elif image := _from_disk(fleet, options, gathered):
            made.append(replace(way, image=image))
    return made


def _from_disk(fleet: Fleet, options: Options, gathered: Gathered) -> str:
    """The name of an image made of the disk; empty when there can be none, which is said."""
    name = f"proa-compare-{fleet.run}"
    fleet.discard_image(name)
    try:
        fleet.client.from_disk(Path(options.name), name)
    except ProaError as error:
        gathered.leave("the disk as a container", error.message)
        return ""
    return name
