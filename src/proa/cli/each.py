"""Doing one thing to each of several arguments."""

from __future__ import annotations

from proa.errors import NotModified, ProaError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def each(arguments: Iterable[str], work: Callable[[str], object], *, echo: bool = True) -> int:
    """Do `work` to each, going on after an error; the last error's exit code, or 0.

    Each argument is printed when its work is done, as Docker does, unless `echo` is off.
    """
    from proa.cli.main import complain

    code = 0
    for argument in arguments:
        try:
            work(argument)
        except NotModified:
            pass
        except ProaError as error:
            complain(error)
            code = error.exit_code
            continue
        if echo:
            print(argument, flush=True)
    return code
