"""Attach: hand a client's connection to the monitor, which pumps the bytes from then on.

The engine is not in the data path, so an attached client survives the engine.
"""

from __future__ import annotations

import os
import socket

from proa.agent import MAIN, Attach
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Attachment, Instance
from proa.engine.logs import read_log
from proa.engine.options import AttachOptions, LogOptions
from proa.errors import Conflict


def attach(
    core: Core, instance: Instance, connection: socket.socket, options: AttachOptions
) -> None:
    """Join a client's socket to the main process, now or when it starts; takes the socket over."""
    if instance.state == states.PAUSED:
        raise Conflict(f"Container {instance.id} is paused, unpause the container before attach.")
    if options.logs:
        replay(core, instance, connection, options)
    if not options.stream:
        connection.close()
        return
    with instance.lock:
        running = instance.running
        if options.stdin and options.stream:
            instance.inputs.add(os.fstat(connection.fileno()).st_ino)
        flags = attach_flags(options, instance.tty)
        if options.stdin and instance.record.body.get("StdinOnce") and not instance.tty:
            flags |= 0 if instance.spec.hardware.disk else Attach.CLOSE
        if running is None:
            descriptor = connection.detach()
            instance.waiting.append(Attachment(descriptor, flags, options.detach_keys))
            return
        running.agent().attach(MAIN, connection.fileno(), flags, options.detach_keys)
    connection.close()
    core.emit(instance, "attach")


def attach_flags(options: AttachOptions, terminal: bool) -> int:
    """The ATTACH flags of a client's wishes."""
    wanted = (
        (options.stdin, Attach.IN),
        (options.stdout, Attach.OUT),
        (options.stderr, Attach.ERR),
        (not terminal, Attach.MUX),
    )
    return sum(int(flag) for on, flag in wanted if on)


def replay(
    core: Core, instance: Instance, connection: socket.socket, options: AttachOptions
) -> None:
    """Send what the log holds, framed as the live stream will be."""
    wanted = LogOptions(stdout=options.stdout, stderr=options.stderr)
    for item in read_log(core, instance, wanted):
        if item is not None:
            stream, data = item
            connection.sendall(data if instance.tty else frame(stream, data))


def frame(stream: int, data: bytes) -> bytes:
    """Docker's stdcopy framing: stream number, three zeros, big-endian length, bytes."""
    return bytes((stream, 0, 0, 0)) + len(data).to_bytes(4, "big") + data
