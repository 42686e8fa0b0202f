"""A machine's screen, keyboard and pointer, by QMP: nothing of it has a path or a port."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import ExitStack

from proa.errors import Corrupt, Invalid, IsolationError, Unsupported
from proa.isolation.vm import picture
from proa.isolation.vm.keyboard import Chord
from proa.isolation.vm.machine import Machine

PICTURE_MAXIMUM_BYTES = 128 << 20
PICTURE_SETS = 1 << 20  # from here on no descriptor of QEMU's own has its number
BUTTONS = ("left", "middle", "right")
POINTER_MAXIMUM = 0x7FFF  # of INPUT_EVENT_ABS, for any size of the screen
CLICK_SECONDS = 0.05


def require(machine: Machine) -> None:
    """Raises Unsupported for a machine without a display."""
    if machine.facts.get("display", "none") == "none":
        raise Unsupported(
            "this machine has no screen",
            hint="run a disk with --display std; its serial console is `proa logs` and `attach`",
        )


def shot(machine: Machine) -> bytes:
    """What the screen shows now, as PNG."""
    require(machine)
    try:
        return _dump(machine, {"format": "png"})
    except IsolationError as error:
        if "'format'" not in error.message and "PNG" not in error.message:
            raise
    return picture.from_ppm(_dump(machine, {}))  # QEMU before 7.1, or built without PNG


def _dump(machine: Machine, options: dict[str, str]) -> bytes:
    """QEMU truncates what it writes to, so it gets a file; sealed, before it is looked at."""
    with ExitStack() as opened:
        memory = os.memfd_create("screen", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        opened.callback(os.close, memory)
        writing = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        opened.callback(os.close, writing)  # QEMU takes only what has just the access it wants
        number = PICTURE_SETS + memory  # no two at once have the same
        machine.qmp.execute("add-fd", {"fdset-id": number}, descriptor=writing)
        try:
            file = {"filename": f"/dev/fdset/{number}"}
            machine.qmp.execute("screendump", {**file, **options})
        finally:
            machine.qmp.execute("remove-fd", {"fdset-id": number})
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        length = os.fstat(memory).st_size
        if not 0 < length <= PICTURE_MAXIMUM_BYTES:
            raise Corrupt(f"the screen's picture has '{length}' bytes")
        return os.pread(memory, length, 0)


def join(machine: Machine, client: socket.socket) -> None:
    """Let QEMU speak VNC (RFB) with a client, whose socket it gets; the engine keeps none."""
    require(machine)
    name = f"vnc-{client.fileno()}"
    machine.qmp.execute("getfd", {"fdname": name}, descriptor=client.fileno())
    try:
        machine.qmp.execute("add_client", {"protocol": "vnc", "fdname": name})
    except IsolationError:
        machine.qmp.execute("closefd", {"fdname": name})
        raise


def press(machine: Machine, chords: tuple[Chord, ...], delay_ms: int) -> None:
    """Press and release chords one after another, `delay_ms` each; returns when all are done.

    Slower than what the guest takes, or it loses keys: a keyboard's queue holds a few.
    """
    require(machine)
    for chord in chords:
        machine.qmp.execute("input-send-event", {"events": [_key(name, True) for name in chord]})
        time.sleep(delay_ms / 2000)
        events = [_key(name, False) for name in reversed(chord)]
        machine.qmp.execute("input-send-event", {"events": events})
        time.sleep(delay_ms / 2000)


def _key(name: str, down: bool) -> dict[str, object]:
    key = {"type": "qcode", "data": name}
    return {"type": "key", "data": {"down": down, "key": key}}


def click(machine: Machine, x: int, y: int, button: str) -> None:
    """Move the pointer to a pixel of the screen and click.  Raises Invalid beyond its edge."""
    if button not in BUTTONS:
        raise Invalid(f"unknown button '{button}'", hint=", ".join(BUTTONS))
    width, height = picture.size(shot(machine))
    if not (0 <= x < width and 0 <= y < height):
        raise Invalid(f"'{x},{y}' is beyond the screen's {width}x{height} pixels")
    place = [_axis("x", x, width), _axis("y", y, height)]
    machine.qmp.execute("input-send-event", {"events": place})
    for down in (True, False):
        time.sleep(CLICK_SECONDS)
        event = {"type": "btn", "data": {"down": down, "button": button}}
        machine.qmp.execute("input-send-event", {"events": [event]})


def _axis(axis: str, position: int, extent: int) -> dict[str, object]:
    value = (2 * position + 1) * POINTER_MAXIMUM // (2 * extent)
    return {"type": "abs", "data": {"axis": axis, "value": value}}
