"""A machine's screen and keyboard."""

from __future__ import annotations

import os
import sys

from proa.cli import session
from proa.cli.options import Command, Option, OptionsFirst, Values
from proa.client.connection import Connection, instance_path
from proa.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import socket

    _Socket = socket.socket | _socket.socket

_ESCAPES = {"n": "\n", "t": "\t", "e": "\x1b", "b": "\b", "\\": "\\"}
_FIRST_PORT, _PORTS = 5900, 100
_PIECE_BYTES = 64 << 10


def _path(instance: str, verb: str) -> str:
    return "/proa/instances" + instance_path(instance, f"/{verb}").removeprefix("/containers")


def screen(values: Values, arguments: list[str]) -> int:
    """Save a picture, click, or be a VNC server."""
    if values.vnc:
        return _serve(arguments[0], arguments[1] if len(arguments) > 1 else "")
    if len(arguments) > 1:
        raise Invalid(f"unexpected argument '{arguments[1]}'", hint="an address belongs to --vnc")
    if values.click:
        return _click(arguments[0], values)
    if values.output in (None, "-") and os.isatty(1):
        raise Invalid("a picture is not printed on a terminal", hint="use -o FILE.png")
    data = session.stream("GET", _path(arguments[0], "screen")).read()
    if values.output in (None, "-"):
        sys.stdout.buffer.write(data)
        return 0
    with open(values.output, "wb") as file:
        file.write(data)
    return 0


def _click(instance: str, values: Values) -> int:
    x, _, y = values.click.partition(",")
    if not (x.isdecimal() and y.isdecimal()):
        raise Invalid(f"'{values.click}' is no place on a screen", hint="use X,Y in pixels")
    body = {"X": int(x), "Y": int(y), "Button": values.button}
    session.post(_path(instance, "click"), body)
    return 0


def keys(values: Values, arguments: list[str]) -> int:
    """Type."""
    instance, *words = arguments
    body = {"Words": [_unescaped(word) for word in words], "Text": values.text}
    session.post(_path(instance, "keys"), body | {"DelayMilliseconds": values.delay})
    return 0


def _unescaped(word: str) -> str:
    r"""`\n`, `\t`, `\e`, `\b` and `\\` as the characters they stand for."""
    head, *rest = word.split("\\")
    text = head
    while rest:
        part = rest.pop(0)
        if not part and rest:
            text += "\\" + rest.pop(0)
        elif part[:1] in _ESCAPES:
            text += _ESCAPES[part[0]] + part[1:]
        else:
            raise Invalid(f"unknown escape in '{word}'", hint=r"known are \n \t \e \b \\")
    return text


# -- VNC ----------------------------------------------------------------------------------------


def _serve(instance: str, address: str) -> int:
    """Pass every VNC client on to the engine's socket, until interrupted."""
    import threading

    _begin(instance).socket.close()  # a machine without a screen is refused before anything listens
    with _listener(address) as listener:
        name = listener.getsockname()
        told = f"vnc://{name[0]}:{name[1]}" if isinstance(name, tuple) else f"unix:{name}"
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()
        try:
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_pass_on, args=(instance, client), daemon=True).start()
        finally:
            if not isinstance(name, tuple):
                os.unlink(name)


def _listener(address: str) -> socket.socket:
    import socket

    if address.startswith("unix:"):
        listener = socket.socket(socket.AF_UNIX)
        previous = os.umask(0o177)
        try:
            listener.bind(address.removeprefix("unix:"))
        finally:
            os.umask(previous)
        listener.listen()
        return listener
    if address and not (address.isdecimal() and int(address) < 65536):
        raise Invalid(f"'{address}' is no address for VNC", hint="use a port or unix:PATH")
    tried = (int(address),) if address else range(_FIRST_PORT, _FIRST_PORT + _PORTS)
    for port in tried:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError as error:
            failed = error
    raise Invalid(f"cannot listen on '{address or 'any of 5900 to 5999'}': {failed.strerror}")


def _begin(instance: str) -> Connection:
    connection = session.connect()
    connection.begin_hijack("GET", _path(instance, "vnc"))
    connection.hijack()
    return connection


def _pass_on(instance: str, client: socket.socket) -> None:
    import threading

    from proa.errors import ProaError

    with client:
        try:
            connection = _begin(instance)
        except ProaError as error:
            sys.stderr.write(f"proa: {error.message}\n")
            return
        client.sendall(connection.early)
        machine = connection.socket
        back = threading.Thread(target=_copy, args=(machine, client), daemon=True)
        back.start()
        _copy(client, machine)
        back.join()
        machine.close()


def _copy(source: _Socket, target: _Socket) -> None:
    """Until one side ends; then so does the other."""
    from socket import SHUT_RDWR

    try:
        while data := source.recv(_PIECE_BYTES):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(SHUT_RDWR)
        except OSError:
            continue


COMMANDS = {
    "screen": Command(
        "[OPTIONS] INSTANCE [ADDRESS]", "Save a machine's screen as PNG, click on it, or serve VNC",
        screen,
        (
            Option("-o, --output", "text", "FILE", "write the picture there (- or none: stdout)"),
            Option("--vnc", "flag", "", "serve VNC at ADDRESS: a local port or unix:PATH"),
            Option("--click", "text", "X,Y", "click on that pixel"),
            Option("--button", "text", "left|middle|right", "which button clicks", "left"),
        ),
        arguments=(1, 2),
    ),
    "keys": OptionsFirst(
        "[OPTIONS] INSTANCE KEYS...", "Type keys (like ctrl-alt-delete) and text into a machine",
        keys,
        (
            Option("--text", "flag", "", "all of it is text, also what names a key"),
            Option("--delay", "integer", "MS", "milliseconds a key", 60),
        ),
        arguments=(2, None),
    ),
}  # fmt: skip
