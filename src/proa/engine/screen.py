"""What is seen of a machine, and what is typed into it."""

from __future__ import annotations

import socket

from proa.engine import instance as states
from proa.engine.instance import Instance
from proa.engine.machines import machine
from proa.errors import Conflict, Invalid
from proa.isolation.vm import keyboard, screen
from proa.isolation.vm.machine import Machine

DELAY_MS = 60
DELAY_MAXIMUM_MS = 10_000


def shot(instance: Instance) -> bytes:
    """The screen as PNG.  Raises Conflict, Unsupported."""
    return screen.shot(machine(instance, "a screen"))


def check(instance: Instance) -> None:
    """Raises Conflict or Unsupported for an instance without a screen."""
    screen.require(machine(instance, "a screen"))


def join(instance: Instance, client: socket.socket) -> None:
    """Let a client speak VNC with the machine; takes the socket over."""
    screen.join(machine(instance, "a screen"), client)
    client.close()


def press(
    instance: Instance, words: tuple[str, ...], *, text: bool = False, delay_ms: int = DELAY_MS
) -> None:
    """Type words: see `keyboard.chords`.  Raises Invalid before the first key."""
    if not 0 < delay_ms <= DELAY_MAXIMUM_MS:
        raise Invalid(f"a delay of '{delay_ms}' ms", hint=f"from 1 to {DELAY_MAXIMUM_MS}")
    found = keyboard.chords(words, text=text)
    screen.press(_awake(instance, "a keyboard"), found, delay_ms)


def click(instance: Instance, x: int, y: int, button: str) -> None:
    """Click on a pixel."""
    screen.click(_awake(instance, "a pointer"), x, y, button)


def _awake(instance: Instance, what: str) -> Machine:
    """QEMU drops, without a word, what is typed while a machine is paused."""
    found = machine(instance, what)
    if instance.state == states.PAUSED:
        raise Conflict(f"Container {instance.name} is paused", hint="unpause it first")
    return found
