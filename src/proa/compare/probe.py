"""A probe inside: an instance of the compared image whose program is `proa-probe`, and its answers.

    with Probe(client, "web", isolation="vm", machine={"Start": "boot"}) as probe:
        [answer] = probe.ask("work", "cpu", "ms=300")

The program is one static file of this host, bind-mounted read-only, so an image needs neither a
shell nor a writable root; a machine with a disk of its own gets a copy of it.  It runs with the
image's own user and the privileges any instance has.
"""

from __future__ import annotations

import io
import os
import platform as this
import tarfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proa.client.connection import image_path, instance_path
from proa.client.sdk import Client, Instance, Options
from proa.client.streams import STDOUT, Demultiplexer
from proa.compare import answers
from proa.errors import (
    Conflict,
    Corrupt,
    HostError,
    IsolationError,
    ProaError,
    Timeout,
    Unsupported,
)
from proa.printable import clean

DIRECTORY = "/.proa"
INSIDE = f"{DIRECTORY}/proa-probe"
COPIED = "/.proa-probe"  # in a machine with a disk of its own
LABEL = "proa.compare"
ANSWER_SECONDS = 60.0
MACHINE_SECONDS = 240.0  # until a machine with its own system takes commands
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_ERROR_BYTES = 4096


def program(architecture: str = "") -> Path:
    """The probe for an architecture in OCI's word (empty: this host's): PROA_PROBE, else built in
    the source tree, else installed.  Raises HostError when it is not there."""
    here = _ARCHITECTURES.get(this.machine(), this.machine())
    name = "proa-probe" if architecture in ("", here) else f"proa-probe-{architecture}"
    built = Path(__file__).parents[3] / "build"
    given = os.environ.get("PROA_PROBE")
    where = Path(given).parent if given else built if built.is_dir() else Path("/usr/lib/proa")
    path = Path(given) if given and name == "proa-probe" else where / name
    if not path.is_file():
        raise HostError(f"there is no program '{path}'", hint="build it with make native")
    return path


class Probe:
    """One instance with the probe in it, from `with` to its end; `options` as of `Client.create`.

    A machine's disk is named by `machine={"Disk": PATH}` and an empty image.
    """

    def __init__(self, client: Client, image: str, **options: Any) -> None:
        self.client = client
        self._image, self._options = image, options
        self._instance: Instance | None = None
        self.program = INSIDE  # its path inside
        self.serving: int | ProaError | None = None  # the port of its server, or why there is none

    def __enter__(self) -> Probe:
        disk = bool(self._options.get("machine", {}).get("Disk"))
        self._instance = self._create_machine() if disk else self._create()
        try:
            self._instance.start()
            if disk:
                self._bring(self._instance)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the instance; more than once is fine."""
        instance, self._instance, self.serving = self._instance, None, None
        if instance is not None:
            instance.remove(force=True)

    @property
    def instance(self) -> Instance:
        """The instance.  Raises Conflict outside of `with`."""
        if self._instance is None:
            raise Conflict("the probe's instance is not there")
        return self._instance

    @property
    def address(self) -> str:
        """Its address in its network.  Raises Unsupported when it has none."""
        networks = self.instance.inspect()["NetworkSettings"]["Networks"]
        for network in networks.values():
            if network.get("IPAddress"):
                return str(network["IPAddress"])
        raise Unsupported("it has no address", hint="give it a network")

    # -- asking ------------------------------------------------------------------------------------

    def ask(self, *words: str, seconds: float = ANSWER_SECONDS) -> list[answers.Line]:
        """Run the probe with these words and read its lines (see `answers`).

        Raises Timeout, Corrupt for what no probe writes, IsolationError when it says nothing.
        """
        identity = self._exec(words, attach=True)
        out, err = self._collect(identity, words, time.monotonic() + seconds)
        lines = answers.read(out)
        if not lines:
            said = clean(err.decode(errors="replace")) or "nothing"
            raise IsolationError(f"the probe asked for '{' '.join(words)}' said {said}")
        return lines

    def begin(self, *words: str) -> None:
        """Let the probe run with these words beside what it does, until the instance ends."""
        self.client.call(
            "POST",
            f"/exec/{self._exec(words, attach=False)}/start",
            body={"Detach": True, "Tty": False},
        )

    def _exec(self, words: tuple[str, ...], *, attach: bool) -> str:
        body = {
            "Cmd": [self.program, *words],
            "AttachStdout": attach,
            "AttachStderr": attach,
        }
        path = instance_path(self.instance.id, "/exec")
        return str(self.client.call("POST", path, body=body)["Id"])

    def _collect(self, identity: str, words: tuple[str, ...], end: float) -> tuple[bytes, bytes]:
        """Output and the beginning of the complaints, bounded in bytes and in time."""
        out, err = bytearray(), bytearray()
        cutter = Demultiplexer()
        with self.client.connect() as connection:
            connection.begin_hijack("POST", f"/exec/{identity}/start", {"Detach": False})
            connection.hijack()
            data = connection.early
            while True:
                for stream, piece in cutter.feed(data):
                    if stream == STDOUT:
                        out += piece
                    elif len(err) < _ERROR_BYTES:
                        err += piece[:_ERROR_BYTES]
                if len(out) > answers.OUTPUT_MAXIMUM_BYTES:
                    raise Corrupt(f"the probe wrote {len(out)} bytes and does not end")
                try:
                    connection.socket.settimeout(max(end - time.monotonic(), 0.001))
                    data = connection.socket.recv(65536)
                except TimeoutError:
                    asked = " ".join(words)
                    raise Timeout(f"the probe gave no answer to '{asked}' in time") from None
                except ConnectionError:
                    break
                if not data:
                    break
        return bytes(out), bytes(err)

    # -- making it ---------------------------------------------------------------------------------

    def _create(self) -> Instance:
        options = dict(self._options)
        more: Mapping[str, Any] = options.pop("more", {})
        mount = {
            "Type": "bind",
            "Source": str(program(self._architecture())),
            "Target": INSIDE,
            "ReadOnly": True,
        }
        options["more"] = {**more, "Mounts": [*more.get("Mounts", ()), mount]}
        options["entrypoint"] = [INSIDE]
        chosen = Options(**self._labelled(options))
        # The image's health check would find another program than its own, and work meanwhile.
        body = chosen.request(self._image, ["hold"]) | {"Healthcheck": {"Test": ["NONE"]}}
        query: dict[str, object] = {"name": chosen.name, "platform": chosen.platform}
        answer = self.client.call("POST", "/containers/create", query, body=body)
        return Instance(self.client, str(answer["Id"]))

    def _create_machine(self) -> Instance:
        return self.client.create(self._image, **self._labelled(self._options))

    def _labelled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        return {**options, "labels": {LABEL: "probe", **options.get("labels", {})}}

    def _architecture(self) -> str:
        if wanted := self._options.get("platform"):
            return str(wanted).rpartition("/")[2]
        return str(
            self.client.call("GET", image_path(self._image, "/json")).get("Architecture", "")
        )

    def _bring(self, instance: Instance) -> None:
        """Copy the program into a machine, as soon as something in it answers."""
        disk = self._options["machine"]
        path = program(str(disk.get("Platform", "")).rpartition("/")[2])
        end = time.monotonic() + MACHINE_SECONDS
        while True:
            try:
                instance.put_archive("/", _archive(path))
                break
            except Conflict:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        self.program = COPIED


def _archive(path: Path) -> bytes:
    """A tar of the program, for anybody to run."""
    data = path.read_bytes()
    member = tarfile.TarInfo(COPIED.lstrip("/"))
    member.size, member.mode = len(data), 0o755
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
