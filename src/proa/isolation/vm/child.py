"""A machine the engine runs itself, with nobody's program in it: for probes and templates."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proa.agent import Agent, Dispatcher
from proa.errors import HostError, IsolationError, ProaError
from proa.host import netlink
from proa.isolation.vm import qemu, qmp
from proa.isolation.vm.guest import Kernel
from proa.isolation.vm.layers import Opened

BLANK_BYTES = 16 << 30
BOOT_SECONDS = 60.0


@dataclass(frozen=True)
class Firmware:
    """What boots: the kernel and the file with its first file system."""

    kernel: Kernel
    initramfs: Path

    def boot(self) -> qemu.Boot:
        """As QEMU wants it."""
        return qemu.Boot(str(self.kernel.image), str(self.initramfs))


@dataclass
class Child:
    """A booted machine: init has said HELLO."""

    process: subprocess.Popen[bytes]
    agent: Agent
    qmp: qmp.Qmp


@contextlib.contextmanager
def boot(
    machine: qemu.Machine,
    firmware: Firmware,
    dispatcher: Dispatcher,
    *,
    memory: int = -1,
    seconds: float = BOOT_SECONDS,
) -> Iterator[Child]:
    """Boot a machine with blank disks and an unplugged network; it is killed in the end.

    Raises IsolationError with QEMU's words when it dies, Timeout when init does not answer.
    """
    with ExitStack() as stack:
        control, control_end = socket.socketpair()
        channel, channel_end = socket.socketpair()
        for end in (control_end, channel_end):
            stack.callback(end.close)
        shares = stack.enter_context(tempfile.TemporaryDirectory(prefix="proa-shares-"))
        files = qemu.Files(
            control_end.fileno(),
            channel_end.fileno(),
            _blank(stack, os.O_RDONLY),
            Opened.single(_blank(stack, os.O_RDWR)),
            blank_tap(stack) if machine.network else -1,
            memory,
            shares,
        )
        said = stack.enter_context(tempfile.TemporaryFile())
        argv = qemu.arguments(machine, files, firmware.boot())
        process = _spawn(argv, files, said.fileno())
        stack.callback(process.wait)
        stack.callback(process.kill)
        control_end.close()
        channel_end.close()
        agent, client = Agent(channel), qmp.Qmp(control)
        dispatcher.add(agent)
        try:
            client.execute("qmp_capabilities")
            agent.wait_hello(seconds)
            yield Child(process, agent, client)
        except ProaError as error:
            raise _explained(error, process, said.fileno()) from error
        finally:
            client.close()


def _spawn(argv: tuple[str, ...], files: qemu.Files, errors: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            pass_fds=files.descriptors(),
            stdin=subprocess.DEVNULL,
            cwd="/",
            env={},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
    except OSError as error:
        raise HostError(
            f"cannot run '{argv[0]}': {error.strerror}", hint="install 'qemu-system-x86'"
        ) from error


def _explained(error: ProaError, process: subprocess.Popen[bytes], errors: int) -> ProaError:
    """The same error with what QEMU wrote before it ended, when it has ended."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    said = os.pread(errors, 4096, 0).decode("utf-8", "replace").strip().replace("\n", "; ")
    if process.returncode is None or not said:
        return error
    return IsolationError(f"qemu ended with {process.returncode}: {said}")


def _blank(stack: ExitStack, flags: int) -> int:
    """An empty disk of the size of a slot, in memory."""
    descriptor = os.memfd_create("blank", os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    os.ftruncate(descriptor, BLANK_BYTES)
    again = os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)
    stack.callback(os.close, again)
    return again


def blank_tap(stack: ExitStack) -> int:
    """A tap that is in no bridge."""
    descriptor = netlink.tap_open(f"pvt{secrets.token_hex(4)}", "")
    stack.callback(os.close, descriptor)
    return descriptor
