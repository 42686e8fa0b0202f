"""Advice for what the engine knows: an image of its store, a service, this host.

Read only when somebody asks for it; `isolation: auto` does, at the creation of an instance.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proa.advice import asked, files, policy
from proa.advice.compose.facts import combine
from proa.advice.facts import Fact, Facts
from proa.advice.files.programs import is_foreign
from proa.advice.policy import NO_POLICY, Policy
from proa.advice.verdict import NEITHER, Advice, advise
from proa.engine import whole
from proa.engine.core import Core
from proa.engine.image_tree import image_tree
from proa.errors import Conflict, Invalid
from proa.image import platforms
from proa.image.catalog import Image
from proa.image.layer import tree
from proa.isolation.vm import accel
from proa.printable import clean

SEARCHED_MAXIMUM = 32  # directories of a PATH
POLICY_HINT = "see the 'policy' of [advice] in the engine's configuration"


@dataclass(frozen=True)
class Question:
    """What is asked: a subject (`kind` and `name`), its image if it has one that is here, what a
    client knows of it (`facts`), and the form it wants, if any.  `start` may have another
    `Entrypoint` and `Cmd` than the image."""

    image: str = ""
    kind: str = "image"
    name: str = ""
    facts: tuple[Fact, ...] = ()
    policy: Policy = NO_POLICY
    isolation: str = ""
    start: Mapping[str, Any] = field(default_factory=dict)


def answer(core: Core, question: Question) -> Advice:
    """The advice.  Raises ImageNotFound, HostError."""
    told = (*question.facts, *_foreign(question.facts))
    known = Facts(question.kind, question.name or question.image, told)
    if question.image:
        image = core.images.get(question.image)
        known = combine(known, Facts("image", "", image_facts(core, image, question.start)))
    known = combine(known, Facts("host", "", tuple(host_facts(core))))
    return advise(known, question.policy, question.isolation)


def _foreign(told: Sequence[Fact]) -> Iterator[Fact]:
    """Whether the processor a client names, of a disk or a `platform`, is another than ours."""
    host = platforms.here().architecture
    known = {fact.key: fact for fact in told}
    if "os.architecture" in known and "os.foreign" not in known:
        machine = known["os.architecture"]
        foreign = is_foreign(str(machine.value), host)
        yield Fact("os.foreign", foreign, f"{machine.source}; this host: {host}")


def image_facts(
    core: Core, image: Image, body: Mapping[str, Any] | None = None
) -> tuple[Fact, ...]:
    """What an image's configuration and files say, files before configuration.

    `body` is a create request that may have another command.
    """
    layers = core.images.layers(image)
    host = platforms.here().architecture
    start = _start(image.defaults, body or {})
    with tree.reporting("read the image's files"), image_tree(layers) as root:
        found = list(files.facts(root, host, start))
    said = {fact.key for fact in found}
    found += [fact for fact in asked.of_image(image.config, host) if fact.key not in said]
    found.append(Fact("size.bytes", image.size_bytes, "files of its layers"))
    found.append(Fact("size.layers", len(image.diff_ids), "its configuration"))
    if not start.command and not start.entrypoint:
        disk = whole.held(core.images, image)
        if disk is not None:
            found.append(Fact("os.disk", True, f"/{whole.DISK_DIRECTORY}/{disk.name}"))
    return tuple(found)


def _start(config: Mapping[str, Any], body: Mapping[str, Any]) -> files.Start:
    """What is run, as `request.merge` has it."""
    entrypoint, command = asked.words(body.get("Entrypoint")), asked.words(body.get("Cmd"))
    source = "Cmd of the request"
    if not entrypoint:
        if not command:
            command, source = asked.words(config.get("Cmd")), "Cmd of its configuration"
        if "Entrypoint" not in body or body["Entrypoint"] is None:
            entrypoint = asked.words(config.get("Entrypoint"))
            source = "Entrypoint and " + source if entrypoint else source
    variables = asked.words(config.get("Env"))
    path = next((item[5:] for item in variables if item.startswith("PATH=")), "")
    search = tuple(filter(None, path.split(":", SEARCHED_MAXIMUM)))[:SEARCHED_MAXIMUM]
    return files.Start(entrypoint, command, search, source)


def host_facts(core: Core) -> Iterator[Fact]:
    """What this host can do; the accelerator, when a vm has been here."""
    for name, isolation in core.isolations.items():
        missing = isolation.check()
        yield Fact(f"host.{name}", not missing, "; ".join(missing) or "this host was checked")
    yield Fact("host.kernel", os.uname().release, "uname -r of this host")
    found = accel.known(core.config.root / "vm" / "accelerator.json")
    if found is not None:
        reason = found.reason.partition(":")[0]
        yield Fact("host.accelerator", found.name, clean(reason) or "a guest that was tried")


# -- `isolation: auto` -----------------------------------------------------------------------------


def settled(core: Core, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A create request with its form chosen, and what its record keeps of that."""
    advice = chosen(core, body)
    host = {**(body.get("HostConfig") or {}), "Isolation": advice.form}
    return {**body, "HostConfig": host}, noted(advice)


def chosen(core: Core, body: Mapping[str, Any]) -> Advice:
    """The form for a create request that leaves it to us.

    Raises Conflict when there is none, or when the engine's policy forbids it.
    """
    name = str(body.get("Image") or "")
    found = list(asked.of_request(body))
    machine = body.get("Proa")
    if isinstance(machine, Mapping) and not name:
        found.append(Fact("os.disk", True, str(machine.get("Disk") or "a new disk")))
    known = Facts("image", name or "disk", tuple(found))
    if name:
        known = combine(known, Facts("image", name, image_facts(core, core.images.get(name), body)))
    known = combine(known, Facts("host", "", tuple(host_facts(core))))
    advice = advise(known, engine_policy(core))
    if advice.form == NEITHER:
        raise Conflict(
            f"neither form can run it: {advice.summary.partition(': ')[2]}",
            hint="`proa advise` shows all reasons",
        )
    if advice.violations:
        raise Conflict(
            f"the policy of this engine forbids it: {'; '.join(advice.violations)}",
            hint=POLICY_HINT,
        )
    return advice


def engine_policy(core: Core) -> Policy:
    """The policy this engine's owner demands.  Raises Invalid."""
    path = str(core.config.advice.get("policy") or "")
    if not path:
        return NO_POLICY
    try:
        with open(path, encoding="utf-8") as file:
            return policy.read(file.read(policy.MAXIMUM_BYTES + 1), path)
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the policy '{path}': {error}", hint=POLICY_HINT) from None


def noted(advice: Advice) -> dict[str, Any]:
    """What an instance's record keeps of how its form was chosen."""
    return {
        "Form": advice.form, "Strength": advice.strength,
        "Reasons": [
            {"Rule": one.rule, "Form": one.form, "Words": one.words} for one in advice.reasons
        ],
    }  # fmt: skip


def said(record: Mapping[str, Any]) -> str:
    """The same in a line, for whoever created it."""
    own = [one["Words"] for one in record["Reasons"] if one["Form"] == record["Form"]]
    why = "; ".join(own[:2]) or "nothing speaks for a kernel of its own"
    return f"isolation 'auto' chose {record['Form']} ({record['Strength']}): {why}"
