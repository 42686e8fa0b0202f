"""Devices that come and go while a machine runs: all on one bus kept for them (decision 020)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

from proa.errors import Conflict, IsolationError, Timeout
from proa.isolation.vm import architectures, qemu, qmp

UNPLUG_SECONDS = 10.0
FULL = "all in use"  # what QEMU says of a bus without a free slot


class Plugged(Protocol):
    """A machine, as far as plugging goes."""

    @property
    def shape(self) -> qemu.Machine:
        """What it is."""

    @property
    def qmp(self) -> qmp.Qmp:
        """Its control channel."""


def plug(
    machine: Plugged,
    device: Mapping[str, Any],
    descriptors: Mapping[str, int] | None = None,
    backends: tuple[qmp.Command, ...] = (),
) -> None:
    """Add a device: `driver`, `id` and its properties, as `device_add` has them.

    QEMU gets a copy of each of `descriptors` by name (`getfd`), then runs `backends`, which use
    them.  Returns when the device is there; the guest finds it a little later.
    """
    control = machine.qmp
    for name, descriptor in (descriptors or {}).items():
        control.execute("getfd", {"fdname": name}, descriptor=descriptor)
    for name, arguments in backends:
        control.execute(name, arguments)
    buses = architectures.ALL[machine.shape.architecture].buses
    for bus in buses:
        try:
            control.execute("device_add", {"bus": bus, **device})
            return
        except IsolationError as error:
            if FULL not in error.message:
                raise
    raise Conflict(f"no slot is left for '{device.get('id', device['driver'])}'")


def unplug(machine: Plugged, id: str, backends: tuple[qmp.Command, ...] = ()) -> None:
    """Take a device away, then run `backends` to free what was behind it.

    Raises Timeout when the guest does not let go of it; the device then stays.
    """
    control = machine.qmp
    try:
        control.execute("device_del", {"id": id})
        control.wait_event("DEVICE_DELETED", UNPLUG_SECONDS, id)
    except Timeout:
        raise Timeout(
            f"the guest did not let go of '{id}' within {UNPLUG_SECONDS:g} seconds",
            hint="end what uses it inside, then try again",
        ) from None
    for name, arguments in backends:
        control.execute(name, arguments)


def forget(machine: Plugged, backends: tuple[qmp.Command, ...]) -> None:
    """Free what was made for a device that could not be plugged."""
    for name, arguments in backends:
        with contextlib.suppress(IsolationError, Timeout):
            machine.qmp.execute(name, arguments)
