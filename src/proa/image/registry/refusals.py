"""What a registry's refusal means: a typed error, with a safe line of what it said."""

from __future__ import annotations

import json

from proa.errors import ImageNotFound, NotFound, ProaError, RegistryError, Unauthorized
from proa.image.registry.transport import Answer
from proa.image.registry.wire import Unreachable
from proa.printable import clean

_MAXIMUM_ERROR = 64 << 10


def expect(answer: Answer, statuses: tuple[int, ...], what: str) -> Answer:
    """The answer when its status is one of these; else a typed error, the answer closed."""
    if answer.status in statuses:
        return answer
    try:
        text = said(answer)
    finally:
        answer.close()
    raise _refusal(answer.status, what, text)


def _refusal(status: int, what: str, text: str) -> ProaError:
    if status in (401, 403):
        return Unauthorized(
            f"{what}: access denied: {text}",
            hint="it does not exist or needs a login: 'proa login REGISTRY'",
            status=status,
        )
    if status == 404:
        kind = ImageNotFound if what.startswith("manifest") else NotFound
        return kind(f"{what} not found: {text}")
    if status == 429:
        hint = "too many requests: log in, use a mirror, or try again later"
        return RegistryError(f"{what}: {text}", hint=hint, status=status)
    if status >= 500:
        return Unreachable(f"{what}: the registry failed: {text}", status=status)
    return RegistryError(f"{what}: the registry refused: {text}", status=status)


def said(answer: Answer) -> str:
    """What a refusal says, in one safe line."""
    try:
        data = answer.content(_MAXIMUM_ERROR)
        errors = json.loads(data)["errors"]
        texts = [f"{e.get('code', '')}: {e.get('message', '')}".strip(": ") for e in errors[:3]]
        text = clean(", ".join(texts))
    except (ProaError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        text = ""
    return text or f"status {answer.status}"
