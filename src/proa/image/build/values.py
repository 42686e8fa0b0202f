"""Ports, signals, durations, sizes and health checks as instructions write them."""

from __future__ import annotations

import ipaddress
import re
import signal

from proa.errors import BuildError
from proa.image.build.instructions import Health, Instruction

_DURATION = re.compile(r"[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "μs": 1000,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([kmgtp]?)i?b?", re.IGNORECASE)
_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])([0-9]{1,2}))?")
_PROTOCOLS = ("tcp", "udp", "sctp")
_MAXIMUM_PORTS = 65536
_LONGEST_NANOSECONDS = (1 << 63) - 1
_SHORTEST_NANOSECONDS = 10**6


def ports(text: str) -> tuple[str, ...]:
    """`[address:][host:]port[-port][/protocol]` as `port/protocol`s.  Raises BuildError."""
    *ignored, own = _unbracketed(text).split(":")
    numbers, _, protocol = own.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise BuildError(f"bad protocol '{protocol}' in port '{text}'", hint="tcp, udp or sctp")
    first, last = _range(numbers, text)
    if ignored and ignored[-1]:
        low, high = _range(ignored[-1], text)
        if high - low != last - first and first != last:
            raise BuildError(f"ranges of different lengths in port '{text}'")
    return tuple(f"{port}/{protocol}" for port in range(first, last + 1))


def _unbracketed(text: str) -> str:
    """Without the address, which EXPOSE allows and nobody uses; it has to be one, though."""
    if text.count(":") < 2:
        return text
    address, host, own = text.rsplit(":", 2)
    try:
        if address:
            ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise BuildError(f"bad address '{address}' in port '{text}'") from None
    return f"{host}:{own}"


def _range(text: str, whole: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = (first, last) if dash else (first, first)
    if not all(re.fullmatch(r"\d{1,5}", end, re.ASCII) for end in ends):
        raise BuildError(f"bad port '{whole}'", hint="write it like 80, 8000-8010 or 53/udp")
    low, high = map(int, ends)
    if not low <= high < _MAXIMUM_PORTS:
        raise BuildError(f"bad port '{whole}'", hint="ports go from 0 to 65535, upwards")
    return low, high


def signal_number(text: str) -> int:
    """A signal by name, with or without SIG, or number.  Raises BuildError."""
    if re.fullmatch(r"[1-9]\d?", text, re.ASCII) and int(text) <= 64:
        return int(text)
    name = text.upper().removeprefix("SIG")
    if match := _REAL_TIME.fullmatch(name):
        base = signal.SIGRTMIN if match[1] == "MIN" else signal.SIGRTMAX
        number = base + int(f"{match[2] or '+'}{match[3] or 0}")
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return number
    found = getattr(signal, f"SIG{name}", None)
    if not isinstance(found, signal.Signals):
        raise BuildError(f"bad signal '{text}'", hint="a name like SIGTERM, or a number")
    return int(found)


def duration_nanoseconds(text: str) -> int:
    """Go's durations: `1m30s`, `1.5h`, `500ms`, `0`.  Raises BuildError."""
    if text in ("0", "+0", "-0"):
        return 0
    if len(text) > 64 or not _DURATION.fullmatch(text):
        raise BuildError(f"bad duration '{text}'", hint="a number and a unit: 500ms, 30s, 1m30s")
    total = 0
    for number, unit in _DURATION_PART.findall(text):
        whole, _, fraction = number.partition(".")
        total += int(whole or 0) * _NANOSECONDS[unit]
        total += int(fraction or 0) * _NANOSECONDS[unit] // 10 ** len(fraction)
    if total > _LONGEST_NANOSECONDS:
        raise BuildError(f"duration '{text}' is too long")
    return -total if text.startswith("-") else total


def size_bytes(text: str) -> int:
    """`64m`, `1.5g`, `4096`.  Raises BuildError."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise BuildError(f"bad size '{text}'", hint="a number and a unit: 64m, 1g")
    return int(float(match[1]) * 1024.0 ** " kmgtp".index(match[2].lower() or " "))


def health(instruction: Instruction) -> Health:
    """What HEALTHCHECK says, for the image's configuration.  Raises BuildError at a place."""
    if instruction.form == "none":
        return Health(("NONE",))
    kind = "CMD" if instruction.form == "exec" else "CMD-SHELL"
    times = {name: _interval(instruction, name) for name in _INTERVALS}
    retries = instruction.flag("retries")
    if retries and not re.fullmatch(r"\+?\d{1,9}", retries, re.ASCII):
        raise _flag_error(instruction, "retries", f"bad number of retries '{retries}'")
    return Health(
        (kind, *instruction.arguments),
        times["interval"],
        times["timeout"],
        times["start-period"],
        times["start-interval"],
        int(retries or 0),
    )


_INTERVALS = ("interval", "timeout", "start-period", "start-interval")


def _interval(instruction: Instruction, name: str) -> int:
    text = instruction.flag(name)
    if not text:
        return 0
    try:
        found = duration_nanoseconds(text)
    except BuildError as error:
        raise _flag_error(instruction, name, error.message, error.hint) from None
    if found and found < _SHORTEST_NANOSECONDS:
        raise _flag_error(instruction, name, f"'--{name}={text}' is less than 1ms")
    return found


def _flag_error(instruction: Instruction, name: str, message: str, hint: str = "") -> BuildError:
    place = next((flag.place for flag in instruction.flags if flag.name == name), None)
    return instruction.error(message, hint=hint, at=place)
