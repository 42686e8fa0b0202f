"""`POST /proa/advise`: container or vm, for an image of the store or for what a client knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proa.api.answer import Answer, json_reply
from proa.api.docker import bodies
from proa.api.request import Request
from proa.errors import Invalid

if TYPE_CHECKING:
    from proa.engine.engine import Engine

START = ("Entrypoint", "Cmd")
FIELDS = ("Image", "Kind", "Name", "Facts", "Policy", "PolicyName", "Isolation", *START)
KINDS = ("image", "service", "disk")


def advise(engine: Engine, request: Request) -> Answer:
    """POST /proa/advise with `Image`, or `Facts` of a `Kind` and `Name`; `Policy` is a text."""
    from proa.advice import document, policy
    from proa.engine.advise import Question
    from proa.engine.fields import Fields

    body = bodies.read(request)
    given = Fields(body)
    unknown = sorted(set(body) - set(FIELDS))
    if unknown:
        raise Invalid(f"unknown field '{unknown[0]}'", hint=", ".join(FIELDS))
    facts, kind = document.read_facts(body.get("Facts")), given.text("Kind") or KINDS[0]
    if kind not in KINDS:
        raise Invalid(f"unknown kind '{kind}'", hint=", ".join(KINDS))
    if not given.text("Image") and not facts:
        raise Invalid("nothing to advise on", hint="name an 'Image', or send 'Facts'")
    asked, text = given.text("Isolation"), given.text("Policy")
    if asked and asked not in policy.FORMS:
        raise Invalid(f"unknown isolation '{asked}'", hint=" or ".join(policy.FORMS))
    rules = policy.read(text, given.text("PolicyName") or "policy") if text else policy.NO_POLICY
    start = {key: given.strings(key) for key in START if given.has(key)}
    question = Question(given.text("Image"), kind, given.text("Name"), facts, rules, asked, start)
    return json_reply(document.write(engine.advise(question)))
