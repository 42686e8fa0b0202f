"""What instructions do to an image's configuration, and the history they leave (BuildKit's words).

One implementation for builds, `import --change` and `commit --change`.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from proa.image.build import script, values, words
from proa.image.build.instructions import Health, Instruction

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
COMMENT = "buildkit.dockerfile.v0"
_UNITS = ((3600 * 10**9, "h"), (60 * 10**9, "m"))
_SMALL_UNITS = ((10**9, "s"), (10**6, "ms"), (10**3, "µs"))
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t",
            "\a": "\\a", "\b": "\\b", "\f": "\\f", "\v": "\\v"}  # fmt: skip


class Draft:
    """An image's configuration while instructions change it.

    `document` is the OCI document: `config`, `history`, `author` and the platform.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document: dict[str, Any] = json.loads(json.dumps(dict(document)))
        self.document.pop("rootfs", None)
        if not isinstance(self.document.get("config"), dict):
            self.document["config"] = {}
        self.document["history"] = list(self.document.get("history") or [])
        self._has_command = False  # a CMD of this stage: an ENTRYPOINT leaves it

    @property
    def config(self) -> dict[str, Any]:
        """What Docker calls `Config`."""
        found: dict[str, Any] = self.document["config"]
        return found

    @property
    def history(self) -> list[dict[str, Any]]:
        """One entry per instruction, the oldest first."""
        found: list[dict[str, Any]] = self.document["history"]
        return found

    @property
    def directory(self) -> str:
        """The working directory, absolute."""
        return posixpath.join("/", str(self.config.get("WorkingDir") or "/"))

    @property
    def user(self) -> str:
        """As USER said it."""
        return str(self.config.get("User") or "")

    @property
    def shell(self) -> tuple[str, ...]:
        """As SHELL said it, or the default."""
        return tuple(self.config.get("Shell") or script.DEFAULT_SHELL)

    @property
    def environment(self) -> dict[str, str]:
        """The variables of ENV."""
        return dict(item.partition("=")[::2] for item in self.config.get("Env") or [])

    def set_variable(self, name: str, value: str) -> None:
        """One variable, in the place it had."""
        self.config["Env"] = [f"{k}={v}" for k, v in {**self.environment, name: value}.items()]

    def apply(self, instruction: Instruction) -> None:
        """An expanded instruction that changes the configuration alone, or WORKDIR's part of it.

        Raises BuildError.
        """
        said = _EFFECTS[instruction.keyword](self, instruction)
        if said:
            self.record(said, layer=instruction.keyword == "WORKDIR" and self.directory != "/")

    def record(self, text: str, *, layer: bool) -> None:
        """A line of history; its time is filled in when it is known."""
        entry: dict[str, Any] = {"created_by": text, "comment": COMMENT}
        if not layer:
            entry["empty_layer"] = True
        self.history.append(entry)

    def put(self, key: str, value: Any) -> None:
        """Set a field of the configuration; an empty value is left out."""
        if value:
            self.config[key] = value
        else:
            self.config.pop(key, None)

    # -- one method per instruction ---------------------------------------------------------------

    def _command(self, instruction: Instruction) -> str:
        arguments = list(script.command(instruction, self.shell).arguments)
        self.put("Cmd", arguments)
        self._has_command = True
        return f"CMD {_quoted(arguments)}"

    def _entrypoint(self, instruction: Instruction) -> str:
        arguments = list(script.command(instruction, self.shell).arguments)
        self.put("Entrypoint", arguments)
        if not self._has_command:
            self.put("Cmd", None)  # an inherited command was meant for another entrypoint
        return f"ENTRYPOINT {_quoted(arguments)}"

    def _variables(self, instruction: Instruction) -> str:
        for name, value in instruction.pairs:
            self.set_variable(name, value or "")
        return "ENV" + "".join(f" {name}={value or ''}" for name, value in instruction.pairs)

    def _labels(self, instruction: Instruction) -> str:
        labels = {name: value or "" for name, value in instruction.pairs}
        self.config["Labels"] = {**(self.config.get("Labels") or {}), **labels}
        return "LABEL" + "".join(f" {name}={value or ''}" for name, value in instruction.pairs)

    def _expose(self, instruction: Instruction) -> str:
        found: list[str] = []
        for text, place in zip(instruction.arguments, instruction.places, strict=False):
            with words.pointing(instruction, place):
                found += values.ports(text)
        found.sort()
        self.config["ExposedPorts"] = {
            **(self.config.get("ExposedPorts") or {}), **{port: {} for port in found}
        }  # fmt: skip
        return f"EXPOSE [{' '.join(found)}]"

    def _volume(self, instruction: Instruction) -> str:
        if not all(instruction.arguments):
            raise instruction.error("VOLUME of an empty path")
        volumes: dict[str, Any] = {path: {} for path in instruction.arguments}
        self.config["Volumes"] = {**(self.config.get("Volumes") or {}), **volumes}
        return f"VOLUME [{' '.join(instruction.arguments)}]"

    def _user(self, instruction: Instruction) -> str:
        self.put("User", instruction.arguments[0])
        return f"USER {instruction.arguments[0]}"

    def _workdir(self, instruction: Instruction) -> str:
        text = instruction.arguments[0]
        path = posixpath.normpath(posixpath.join(self.directory, text))
        self.config["WorkingDir"] = "/" + path.lstrip("/")
        return f"WORKDIR {self.config['WorkingDir']}"

    def _signal(self, instruction: Instruction) -> str:
        with words.pointing(instruction, instruction.places[0]):
            values.signal_number(instruction.arguments[0])
        self.put("StopSignal", instruction.arguments[0])
        return f"STOPSIGNAL {instruction.arguments[0]}"

    def _shell(self, instruction: Instruction) -> str:
        self.put("Shell", list(instruction.arguments))
        return f"SHELL [{' '.join(instruction.arguments)}]"

    def _health(self, instruction: Instruction) -> str:
        health = values.health(instruction)
        fields = {
            "Test": list(health.test), "Interval": health.interval_nanoseconds,
            "Timeout": health.timeout_nanoseconds, "StartPeriod": health.start_period_nanoseconds,
            "StartInterval": health.start_interval_nanoseconds, "Retries": health.retries,
        }  # fmt: skip
        self.config["Healthcheck"] = {key: value for key, value in fields.items() if value}
        return f"HEALTHCHECK {_health_text(health)}"

    def _maintainer(self, instruction: Instruction) -> str:
        self.document["author"] = instruction.arguments[0]
        return f"MAINTAINER {instruction.arguments[0]}"

    def _trigger(self, instruction: Instruction) -> str:
        self.config["OnBuild"] = [*(self.config.get("OnBuild") or []), instruction.arguments[0]]
        return ""


_EFFECTS: dict[str, Callable[[Draft, Instruction], str]] = {
    "CMD": Draft._command, "ENTRYPOINT": Draft._entrypoint, "ENV": Draft._variables,
    "LABEL": Draft._labels, "EXPOSE": Draft._expose, "VOLUME": Draft._volume,
    "USER": Draft._user, "WORKDIR": Draft._workdir, "STOPSIGNAL": Draft._signal,
    "SHELL": Draft._shell, "HEALTHCHECK": Draft._health, "MAINTAINER": Draft._maintainer,
    "ONBUILD": Draft._trigger,
}  # fmt: skip
CHANGES = tuple(sorted({*_EFFECTS} - {"MAINTAINER"}))  # those of the configuration alone


def _quoted(arguments: Sequence[str]) -> str:
    """A list of strings as Go's `%q` writes it."""
    return f"[{' '.join(map(_quote, arguments))}]"


def _quote(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(char) or _printable(char) for char in text) + '"'


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    number = ord(char)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _health_text(health: Health) -> str:
    """As Go prints the structure with `%q`: the retries are taken for a character."""
    times = (
        health.interval_nanoseconds, health.timeout_nanoseconds,
        health.start_period_nanoseconds, health.start_interval_nanoseconds,
    )  # fmt: skip
    shown = " ".join(_quote(_duration(time)) for time in times)
    return f"&{{{_quoted(health.test)} {shown} {_character(health.retries)}}}"


def _character(number: int) -> str:
    char = chr(number) if number < 0xD800 or 0xDFFF < number < 0x110000 else "\ufffd"
    escaped = _quote(char)[1:-1]
    return {'"': "'\"'", "'": "'\\''"}.get(char, f"'{escaped}'")


def _duration(nanoseconds: int) -> str:
    """As Go prints a duration: `1m30s`, `1.5s`, `250ms`, `0s`."""
    if nanoseconds == 0:
        return "0s"
    if nanoseconds < 10**9:
        unit, name = next((item for item in _SMALL_UNITS if nanoseconds >= item[0]), (1, "ns"))
        return _decimal(nanoseconds, unit) + name
    text = ""
    for unit, name in _UNITS:
        if nanoseconds >= unit or text:
            text += f"{nanoseconds // unit}{name}"
            nanoseconds %= unit
    return f"{text}{_decimal(nanoseconds, 10**9)}s"


def _decimal(value: int, unit: int) -> str:
    fraction = str(value % unit).rjust(len(str(unit)) - 1, "0").rstrip("0") if unit > 1 else ""
    return f"{value // unit}.{fraction}" if fraction else str(value // unit)
