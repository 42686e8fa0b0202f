"""From a typed error to an HTTP answer, in Docker's shape: `{"message": "..."}`.

The hint follows the message on a line of its own.  `code` is an addition Docker's clients ignore.
"""

from __future__ import annotations

from proa.api.answer import Reply, json_reply
from proa.errors import LaunchError, NotModified, ProaError


def error_reply(error: ProaError) -> Reply:
    """The answer that tells a client of `error`."""
    if isinstance(error, NotModified):
        return Reply(304)
    body: dict[str, object] = {"message": message_of(error), "code": error.code}
    if isinstance(error, LaunchError):
        body["exitCode"] = error.exit_code
    return json_reply(body, error.http_status)


def message_of(error: ProaError) -> str:
    """Message and hint, as a client shows them."""
    return f"{error.message}\n{error.hint}" if error.hint else error.message
