"""`advise`: container or vm, for an image, a disk or an app file, with reasons and an exit code."""

from __future__ import annotations

import os
import sys

from proa.cli import session
from proa.cli.config import is_disk
from proa.cli.options import Command, Option, Values
from proa.errors import Conflict, Corrupt, ImageNotFound, Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# Exit codes, for CI; the gravest of all subjects counts.
FINE, VIOLATED, CONTRADICTED, IMPOSSIBLE = 0, 3, 4, 5
FILE_MAXIMUM_BYTES = 64 << 20

OPTIONS = (
    Option("--json", "flag", "", "print the whole of it as JSON"),
    Option("-q, --quiet", "flag", "", "print the recommended form only"),
    Option("--policy", "text", "FILE", "what is allowed, demanded (TOML); a breach exits with 3"),
    Option("--isolation", "text", "container|vm", "the form that is wanted; 4 if it cannot be"),
    Option("--trust", "text", "own|known|untrusted", "how far it is trusted"),
    Option("--budget", "list", "start=TIME|memory=SIZE", "how fast it must start, its cost"),
    Option("--stated", "list", "NAME=VALUE", "what else is so: lifetime=years ..."),
    Option("--report", "text", "FILE", "measured results: the JSON of `proa compare`"),
    Option("--profile", "list", "NAME", "of an app file: the services of this profile, too"),
    Option("--root", "integer", "N", "of a disk: the root is on partition N"),
    Option("--split", "text", "FILE", "of a disk: write an app file that splits it (- prints)"),
    Option("--facts", "flag", "", "print every fact that was found"),
)  # fmt: skip


def advise(values: Values, arguments: list[str]) -> int:
    """Print the recommendation for each subject; the gravest finding is the exit code."""
    shared = _shared(values)
    found = [_ask(subject, shared) for subject in _subjects(values, arguments)]
    if not found:
        raise Invalid("the app file has no services", hint="name one's profile with --profile")
    if values.json:
        from proa.client import fastjson

        print(fastjson.pretty({"Advice": found}))
    elif values.quiet:
        print("\n".join(_quiet(one, len(found) > 1) for one in found))
    else:
        from proa.cli import advice_text

        print("\n\n".join(advice_text.render(one, with_facts=values.facts) for one in found))
    return max(map(_code, found))


def _quiet(one: dict[str, Any], several: bool) -> str:
    return f"{one['Name']}: {one['Form']}" if several else str(one["Form"])


def _code(one: dict[str, Any]) -> int:
    if one["Form"] == "neither":
        return IMPOSSIBLE
    if one["Contradiction"]:
        return CONTRADICTED
    return VIOLATED if one["Violations"] else FINE


def _ask(subject: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """The engine's advice; a service whose image is not here is judged by its app file."""
    machine = subject.pop("Machine", None)
    body = {**shared, **subject, "Facts": shared["Facts"] + subject["Facts"]}
    try:
        answer: dict[str, Any] = session.post("/proa/advise", body)
    except ImageNotFound:
        if body.get("Kind") != "service":
            raise
        image = body.pop("Image")
        sys.stderr.write(
            f"note: the image '{image}' of '{body['Name']}' is not here: only what the app file "
            f"says counts (`proa pull {image}`)\n"
        )
        answer = session.post("/proa/advise", body)
    return {**answer, "Machine": machine} if machine else answer


# -- what is asked about ---------------------------------------------------------------------------


def _subjects(values: Values, arguments: list[str]) -> Iterator[dict[str, Any]]:
    from proa.compare import appfile

    name = arguments[0]
    if values.split and not is_disk(name):
        raise Invalid(
            f"'--split' splits a machine's disk, and '{name}' is none", hint="name a disk's file"
        )
    if appfile.is_app_file(name) and os.path.exists(name):
        for item in appfile.subjects(arguments, values.profile):
            yield {
                "Kind": "service", "Name": item.name, "Facts": _facts(item.facts.all),
                **({"Image": item.image} if item.image else {}),
                **{
                    key: list(words)
                    for key, words in (("Entrypoint", item.entrypoint), ("Cmd", item.command))
                    if words is not None
                },
            }  # fmt: skip
        return
    if len(arguments) > 1:
        raise Invalid(f"one image or disk at a time, not '{arguments[1]}', too")
    yield _disk(values, name) if is_disk(name) else {"Image": name, "Facts": []}


def _disk(values: Values, path: str) -> dict[str, Any]:
    """A machine's disk, looked at by a guest; the draft of its services, when that is wanted."""
    from proa.advice.disk import facts
    from proa.advice.disk.machine import load

    if values.split and values.split != "-" and os.path.lexists(values.split):
        raise Conflict(f"'{values.split}' is there already", hint="remove it, or name another file")
    whole = os.path.abspath(path)
    told = session.post("/proa/disks/facts", disk=whole, root=values.root)
    machine = load(told)
    if values.split:
        from proa.advice.split.draft import draft

        _write(values.split, draft(machine, path))
    elif machine.role("part") and not values.quiet:
        sys.stderr.write("hint: `--split FILE` writes an app file that splits its services\n")
    found = _facts(facts.facts_of(machine).all)
    return {"Kind": "disk", "Name": path, "Facts": found, "Machine": told}


def _write(path: str, text: str) -> None:
    if path == "-":
        sys.stdout.write(f"{text}\n")
        return
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def _shared(values: Values) -> dict[str, Any]:
    """What holds for every subject."""
    from proa.advice import stated

    facts = []
    if values.trust:
        facts.append(stated.fact("trust", values.trust, "--trust"))
    for text in values.budget:
        name, equals, value = text.partition("=")
        if not equals or name not in ("start", "memory"):
            raise Invalid(f"'{text}' is not a budget", hint="start=100ms, or memory=64m")
        facts.append(stated.fact(f"{name}-budget", value, f"--budget {text}"))
    for text in values.stated:
        name, equals, value = text.partition("=")
        if not equals:
            raise Invalid(f"'{text}' states nothing", hint="like lifetime=years")
        facts.append(stated.fact(name, value, f"--stated {text}"))
    if values.report:
        facts += _measured(values.report)
    shared: dict[str, Any] = {"Facts": _facts(tuple(facts))}
    if values.policy:
        shared |= {"Policy": _text(values.policy), "PolicyName": os.path.basename(values.policy)}
    if values.isolation:
        shared["Isolation"] = values.isolation
    return shared


def _facts(facts: tuple[Any, ...]) -> list[dict[str, Any]]:
    from proa.advice import document

    return [document.fact(one) for one in facts]


def _measured(path: str) -> list[Any]:
    from proa.advice import measured
    from proa.client import fastjson

    try:
        report = fastjson.loads(_text(path))
    except Corrupt:
        raise Invalid(f"'{path}' is no JSON", hint="write one with `proa compare --json`") from None
    return list(measured.facts(report, os.path.basename(path)))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(FILE_MAXIMUM_BYTES)
    except OSError as error:
        raise NotFound(f"cannot read '{path}': {(error.strerror or '').lower()}") from None
    except UnicodeDecodeError:
        raise Invalid(f"'{path}' is no text") from None


COMMANDS = {
    "advise": Command(
        "[OPTIONS] IMAGE|DISK|APP-FILE", "Say whether it is better run as a container or as a vm",
        advise, OPTIONS, arguments=(1, None),
    ),
}  # fmt: skip
