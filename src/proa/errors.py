"""Every exception Proa raises on purpose.

    ProaError
    ├── Invalid            the request itself is wrong                    400  exit 125
    ├── NotFound           no such instance, image, exec, network         404  exit 125
    │   └── ImageNotFound
    ├── Conflict           a name in use, a wrong state                   409  exit 125
    ├── NotModified        already started, already stopped               304  exit 0
    ├── Unsupported        this host or this isolation cannot do it       501  exit 125
    ├── Corrupt            stored or received data fails its check        422  exit 125
    ├── NoSpace            the disk (or a pool) is full                   507  exit 125
    ├── LaunchError        the place is up, the command is not            400  exit 125/126/127
    ├── IsolationError     the isolated place could not be made, or died  500  exit 125
    ├── HostError          a kernel call or a tool of the host failed     500  exit 125
    ├── Timeout            nothing answered in time                       504  exit 125
    ├── RegistryError      a registry refused, answered nonsense, or not  502  exit 125
    │   └── Unauthorized   it wants a login, or another one               401  exit 125
    ├── BuildError         a Containerfile's line is wrong, a step failed 400  exit 1
    ├── Cancelled          whoever asked for it wants it no more          499  exit 130
    └── EngineUnavailable  (clients) no engine answers at the socket      503  exit 125

Messages are lower case, one line, name the offending value in quotes and end without a full stop;
`hint` says what to do next.  Only the edges (CLI, API) print.
"""

from __future__ import annotations


class ProaError(Exception):
    """Root of all errors; `code` is a stable token clients may rely on."""

    code = "error"
    http_status = 500
    exit_code = 125

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class Invalid(ProaError):
    """The request is malformed or contradicts itself."""

    code = "invalid"
    http_status = 400


class NotFound(ProaError):
    """Nothing has that name or id."""

    code = "not-found"
    http_status = 404


class ImageNotFound(NotFound):
    """No image has that reference or id."""

    code = "image-not-found"


class Conflict(ProaError):
    """The request fights with what exists: a name in use, a port in use, a wrong state."""

    code = "conflict"
    http_status = 409


class NotModified(ProaError):
    """What was asked for is already so (Docker answers 304 and its client is content)."""

    code = "not-modified"
    http_status = 304
    exit_code = 0


class Unsupported(ProaError):
    """This host, or the chosen isolation, cannot do what was asked; says why."""

    code = "unsupported"
    http_status = 501


class Corrupt(ProaError):
    """Data fails its own check: digest, length, format."""

    code = "corrupt"
    http_status = 422


class NoSpace(ProaError):
    """A disk or an address pool has no room left."""

    code = "no-space"
    http_status = 507


class LaunchError(ProaError):
    """Init refused a plan: carries the failed step.

    `step` counts from 0, `errno` is Linux's.  `exit_code` follows Docker: 127 when the command
    was not found, 126 when it cannot be executed, 125 for any other step.
    """

    code = "launch-failed"
    http_status = 400

    def __init__(
        self, message: str, *, step: int, verb: str, argument: str, errno: int, exit_code: int
    ) -> None:
        super().__init__(message)
        self.step = step
        self.verb = verb
        self.argument = argument
        self.errno = errno
        self.exit_code = exit_code


class IsolationError(ProaError):
    """The isolated place could not be made, or died before it answered."""

    code = "isolation-failed"


class HostError(ProaError):
    """A kernel call or a program of the host failed; the message carries its output."""

    code = "host-failed"


class Timeout(ProaError):
    """Nothing answered in time; the outcome is unknown."""

    code = "timeout"
    http_status = 504


class EngineUnavailable(ProaError):
    """No engine answers at the socket."""

    code = "engine-unavailable"
    http_status = 503


class RegistryError(ProaError):
    """A registry refused, could not be reached, or answered nonsense; `status` is HTTP's or 0."""

    code = "registry-failed"
    http_status = 502

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class Unauthorized(RegistryError):
    """A registry wants a login, or refuses the one it got."""

    code = "unauthorized"
    http_status = 401


class BuildError(ProaError):
    """A line of a Containerfile is wrong, or its step failed.

    `line` and `column` count from 1 (0: unknown), `source` is the line's text; `step_exit` is the
    exit code of the command that failed, 0 when none did.
    """

    code = "build-failed"
    http_status = 400
    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        file: str = "",
        line: int = 0,
        column: int = 0,
        source: str = "",
        step_exit: int = 0,
    ) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line
        self.column = column
        self.source = source
        self.step_exit = step_exit


class Cancelled(ProaError):
    """Whoever asked for it wants it no more."""

    code = "cancelled"
    http_status = 499
    exit_code = 130
