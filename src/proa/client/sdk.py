"""The Python SDK: a client of the engine's API, typed and small.

    from proa.client import Client

    with Client() as client:
        client.load(Path("image.tar"))
        result = client.run("debian", ["uname", "-r"], isolation="vm")
        print(result.exit_code, result.stdout)

        web = client.create("web", name="web", isolation="container", ports={80: 8080})
        web.start()
        web.exec(["touch", "/tmp/x"])
        web.stop()
        web.remove()

Errors are the classes of `proa.errors`.  A `Client` may be used by one thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from proa.client import address, build, disks, measures, registry, spawn
from proa.client.connection import (
    Answer,
    Connection,
    Upload,
    image_path,
    instance_path,
    quote,
    target,
)
from proa.client.instance import Instance, converse
from proa.client.progress import checked
from proa.client.values import BuildOptions, Image, Options, Progress, Result
from proa.errors import ProaError

__all__ = ["BuildOptions", "Client", "Image", "Instance", "Options", "Progress", "Result"]

_PIECE_BYTES = 256 * 1024


class Client:
    """A client of one engine; started on demand when it is this root's own.

    `host` is `unix:///path`; without it PROA_HOST, else the socket of PROA_ROOT or the system's.
    """

    def __init__(self, host: str | None = None) -> None:
        self._path = host.removeprefix("unix://") if host else None
        self._idle: Connection | None = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connection back; the client stays usable."""
        if self._idle is not None:
            self._idle.close()
            self._idle = None

    def another(self) -> Client:
        """A further client of the same engine, for another thread."""
        return Client(self._path)

    # -- instances ---------------------------------------------------------------------------------

    def create(self, image: str, command: Sequence[str] = (), **options: Any) -> Instance:
        """Make an instance without starting it; `options` are the fields of `Options`."""
        chosen = Options(**options)
        query: dict[str, object] = {"name": chosen.name, "platform": chosen.platform}
        answer = self.call("POST", "/containers/create", query, body=chosen.request(image, command))
        return Instance(self, answer["Id"])

    def run(
        self,
        image: str,
        command: Sequence[str] = (),
        *,
        input: bytes | None = None,
        **options: Any,
    ) -> Result:
        """Run to the end, collect what it writes, remove it."""
        options["stdin"] = input is not None
        instance = self.create(image, command, **options)
        try:
            with self.connect() as attached, self.connect() as waiting:
                query: dict[str, object] = {
                    "stream": True,
                    "stdin": input is not None,
                    "stdout": True,
                    "stderr": True,
                }
                url = target(instance_path(instance.id, "/attach"), query)
                attached.begin_hijack("POST", url)
                waiting.begin("POST", instance_path(instance.id, "/wait?condition=next-exit"))
                attached.hijack()
                ended = waiting.finish()
                instance.start()
                stdout, stderr = converse(attached, input, tty=bool(options.get("tty")))
                return Result(int(ended.json()["StatusCode"]), stdout, stderr)
        finally:
            instance.remove(force=True)

    def get(self, reference: str) -> Instance:
        """The instance with this name, id or beginning of an id.  Raises NotFound."""
        return Instance(self, Instance(self, reference).inspect()["Id"])

    def instances(self, *, all: bool = False) -> list[Instance]:
        """The instances that run, or all."""
        items = self.call("GET", "/containers/json", {"all": all})
        return [Instance(self, item["Id"]) for item in items]

    # -- images ------------------------------------------------------------------------------------

    def images(self) -> list[Image]:
        """The images the engine has."""
        return [
            Image(i["Id"], tuple(i.get("RepoTags") or ()), i["Size"], i["Created"])
            for i in self.call("GET", "/images/json")
        ]

    def load(self, archive: Path) -> None:
        """Load images from an archive."""

        def pour(body: Upload) -> None:
            with archive.open("rb") as file:
                while data := file.read(_PIECE_BYTES):
                    body.write(data)

        with self.connect() as connection:
            for message in connection.upload("POST", "/images/load?quiet=1", pour).json_lines():
                if "error" in message:
                    raise ProaError(str(message["error"]))

    def build(
        self,
        context: Path | None,
        told: Callable[[dict[str, Any]], object] | None = None,
        **options: Any,
    ) -> str:
        """Build an image of a directory of this host (None: of an empty one); gives its id.

        `options` are the fields of `BuildOptions`; `told` hears every event (`/proa/build`).
        Raises BuildError, which knows file, line and column.
        """
        order = BuildOptions(**options).order(context) | {"logins": build.logins()}
        image = ""
        with self.connect() as connection:
            for event in build.events(connection, order):
                if told is not None:
                    told(event)
                image = event.get("image", {}).get("id", image)
        return image

    def save(self, names: Sequence[str], archive: Path) -> None:
        """Write images to an archive."""
        query = "&".join(target("", {"names": name})[1:] for name in names)
        with archive.open("wb") as file:
            for data in self.stream("GET", f"/images/get?{query}").parts():
                file.write(data)

    def remove_image(self, name: str, *, force: bool = False) -> None:
        """Remove a name, and the image with its last one."""
        self.call("DELETE", image_path(name), {"force": force})

    def to_disk(
        self, name: str, path: Path, *, format: str = "qcow2", size: int = 0, hostname: str = ""
    ) -> None:
        """Write a disk that boots of an image to `path`; a `size` of 0 is what is needed."""
        query: dict[str, object] = {"format": format, "size": size or None, "hostname": hostname}
        with self.connect() as connection:
            url = target(f"/proa/images/{quote(name)}/disk", query)
            disks.receive(connection.request("POST", url), str(path), lambda line: None)

    def from_disk(self, path: Path, name: str = "", *, root: int | None = None) -> dict[str, Any]:
        """Make an image of a machine's disk: its id, `ledger`, `containerfile`, `problems`."""
        query: dict[str, object] = {"file": path.name, "name": name, "root": root}
        url = target("/proa/disks", query)
        with self.connect() as connection:
            answer = connection.upload("POST", url, lambda to: disks.send(str(path), to))
            *_, made = checked(answer.json_lines())
            return dict(made)

    def sizes(self, name: str, *, inside: bool = False, compress: bool = False) -> measures.Sizes:
        """How large an image is, where its bytes went, what a vm of it adds on the disk.

        A name with a slash in front is the path of a machine's disk; with `inside` a guest is
        booted to read it, and the ledger says what is in it.  With `compress` layers that are kept
        plain are compressed to measure them, which takes some seconds a GB.
        """
        query: dict[str, object] = {"inside": inside or None, "compress": compress or None}
        return measures.sizes(self.call("GET", f"/proa/images/{quote(name)}/sizes", query))

    def cool(self, name: str) -> measures.Cooled:
        """Drop from the page cache what starting an image reads, so that the next start is cold.

        A name with a slash in front is the path of a machine's disk.
        """
        return measures.cooled(self.call("POST", f"/proa/images/{quote(name)}/cool"))

    def advise(
        self, image: str, *, facts: Sequence[dict[str, Any]] = (), policy: str = "",
        isolation: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Container or vm, as `POST /proa/advise` answers (docs/concepts/advice.md).

        `facts` are what else is known (`Key`, `Value`, `Source`), `policy` a policy's text,
        `isolation` the form that is wanted.
        """
        body = {"Image": image, "Facts": list(facts), "Policy": policy, "Isolation": isolation}
        answer: dict[str, Any] = self.call("POST", "/proa/advise", body=body)
        return answer

    def disk_facts(self, disk: str, *, root: int | None = None) -> dict[str, Any]:
        """What a disk says of its machine, as `advice.disk.machine.load` takes it.

        An absolute path on the engine's host, or an image that holds a disk.
        """
        query: dict[str, object] = {"disk": disk, "root": root}
        facts: dict[str, Any] = self.call("POST", "/proa/disks/facts", query)
        return facts

    # -- registries --------------------------------------------------------------------------------

    def pull(
        self, name: str, *, platform: str | None = None, progress: registry.Told = registry.silent
    ) -> None:
        """Have an image of a registry here; `progress` hears of each step."""
        with self.connect() as connection:
            registry.pull(connection, name, platform, progress)

    def push(
        self,
        name: str,
        *,
        compression: str | None = None,
        progress: registry.Told = registry.silent,
    ) -> str:
        """Send an image to its registry; the digest it has there."""
        with self.connect() as connection:
            return registry.push(connection, name, compression, progress)

    def tags(self, name: str) -> list[str]:
        """The tags of a repository in its registry."""
        with self.connect() as connection:
            return registry.tags(connection, name)

    def login(self, registry_name: str, user: str, password: str) -> None:
        """Log in to a registry; the login is kept where Docker keeps it.  Raises Unauthorized."""
        with self.connect() as connection:
            registry.log_in(connection, registry_name, user, password)

    # -- the engine --------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """Facts about the engine and its host."""
        facts: dict[str, Any] = self.call("GET", "/info")
        return facts

    def disk_usage(self) -> dict[str, Any]:
        """Who holds which bytes of vms' disks: `Files`, `Shared`, `Total`."""
        found: dict[str, Any] = self.call("GET", "/proa/disks")
        return found

    def host(self) -> dict[str, str]:
        """What the engine runs on: processor, kernel, accelerator, versions."""
        facts: dict[str, str] = self.call("GET", "/proa/host")
        return facts

    def version(self) -> dict[str, Any]:
        """Versions of the engine and its API."""
        facts: dict[str, Any] = self.call("GET", "/version")
        return facts

    def events(self, *, since: str | None = None, until: str | None = None) -> Iterator[Any]:
        """What happens, as it happens."""
        query: dict[str, object] = {"since": since, "until": until}
        return self.stream("GET", "/events", query).json_lines()

    # -- below -------------------------------------------------------------------------------------

    def connect(self) -> Connection:
        """A new connection to the engine."""
        if self._path and self._path != address.socket_path():
            return Connection(self._path)
        return spawn.connect()

    def pull_snapshot(self, source: str, name: str = "") -> Instance:
        """A new instance that goes on from a snapshot in a registry."""
        with self.connect() as connection:
            return Instance(self, registry.pull_snapshot(connection, source, name))

    def call(
        self, method: str, path: str, query: dict[str, object] | None = None, body: object = None
    ) -> Any:
        """One exchange; the answer's JSON.  The connection is kept for the next."""
        connection, self._idle = self._idle or self.connect(), None
        try:
            answer = connection.request(method, target(path, query), body)
            value = answer.json()
        except BaseException:
            connection.close()
            raise
        if answer.reusable:
            self._idle = connection
        else:
            connection.close()
        return value

    def stream(self, method: str, path: str, query: dict[str, object] | None = None) -> Answer:
        """An exchange whose body is read as it comes, on a connection of its own."""
        return self.connect().request(method, target(path, query))
