"""Answers that say no, mapped back to the classes of `proa.errors`."""

from __future__ import annotations

from proa import errors
from proa.client import fastjson

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# What a status means when the body has no `code` (an answer of dockerd).
_BY_STATUS: dict[int, type[errors.ProaError]] = {
    304: errors.NotModified,
    400: errors.Invalid,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.Corrupt,
    501: errors.Unsupported,
    503: errors.EngineUnavailable,
    504: errors.Timeout,
    507: errors.NoSpace,
}


def _by_code() -> dict[str, type[errors.ProaError]]:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    return {kind.code: kind for kind in kinds if issubclass(kind, errors.ProaError)}


def _parse(body: bytes) -> dict[str, Any]:
    try:
        value = fastjson.loads(body)
    except errors.Corrupt:
        value = None
    if isinstance(value, dict):
        return value
    return {"message": body.decode("utf-8", "replace").strip()}


def from_answer(status: int, body: bytes, request: str = "") -> errors.ProaError:
    """The error a failed answer stands for.  `request` is named when the answer has no message."""
    fields = _parse(body)
    code = str(fields.get("code") or "")
    message, hint = _message(fields, own=bool(code))
    message = message or f"the engine answered {status} to '{request}'"
    kind = _by_code().get(code) if code else _BY_STATUS.get(status)
    error: errors.ProaError
    if kind is errors.LaunchError:
        error = _launch_error(message, fields)
        error.hint = hint
    else:
        error = (kind or errors.ProaError)(message, hint=hint)
    exit_code = fields.get("exitCode", fields.get("exit_code"))
    if isinstance(exit_code, int):
        error.exit_code = exit_code
    elif not code:
        error.exit_code = _guess_exit_code(message, error.exit_code)
    return error


def _message(fields: dict[str, Any], own: bool) -> tuple[str, str]:
    """Message and hint: our engine puts the hint, if any, on the lines after the first."""
    text = str(fields.get("message") or "").strip()
    if own:
        first, _, rest = text.partition("\n")
        return first.strip(), str(fields.get("hint") or " ".join(rest.split()))
    return " ".join(text.split()), ""


def _launch_error(message: str, fields: dict[str, Any]) -> errors.LaunchError:
    return errors.LaunchError(
        message,
        step=int(fields.get("step") or 0),
        verb=str(fields.get("verb") or ""),
        argument=str(fields.get("argument") or ""),
        errno=int(fields.get("errno") or 0),
        exit_code=125,
    )


def _guess_exit_code(message: str, otherwise: int) -> int:
    """Docker's own rule for a daemon that gives no code: the runtime's words decide."""
    lowered = message.lower()
    if "executable file not found" in lowered or (
        "exec" in lowered and "no such file or directory" in lowered
    ):
        return 127
    if "exec" in lowered and ("permission denied" in lowered or "is a directory" in lowered):
        return 126
    return otherwise
