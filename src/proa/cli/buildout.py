"""What was built, written to where `proa build --output` says."""

from __future__ import annotations

import os
import sys

from proa.cli import session
from proa.client.connection import Answer, instance_path, target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ARCHIVES = {"oci": "oci-archive", "docker": "docker-archive"}


def write(output: dict[str, str], image: dict[str, Any], names: list[str]) -> None:
    """Write an image (`id` and names) as an archive, or its files as a tar or a directory."""
    kind, destination = output["type"], output["dest"]
    if kind in _ARCHIVES:
        query = "&".join(target("", {"names": name})[1:] for name in names or [image["id"]])
        _save(session.stream("GET", f"/images/get?{query}&format={_ARCHIVES[kind]}"), destination)
        return
    instance = session.post("/containers/create", {"Image": image["id"], "Cmd": ["-"]})["Id"]
    try:
        answer = session.stream("GET", instance_path(instance, "/export"))
        if kind == "tar":
            _save(answer, destination)
        else:
            _lay_out(answer, destination)
    finally:
        session.call("DELETE", instance_path(instance), {"force": True})


def _save(answer: Answer, destination: str) -> None:
    if destination == "-":
        from proa.cli.pump import write_all

        sys.stdout.flush()
        for data in answer.parts():
            write_all(1, data)
        return
    with open(destination, "wb") as file:
        for data in answer.parts():
            file.write(data)


def _lay_out(answer: Answer, destination: str) -> None:
    """The files below a directory, as ours; no name and no link leads out of it."""
    from proa.cli.copy import Reader
    from proa.cli.unpack import unpack

    os.makedirs(destination, exist_ok=True)
    unpack(Reader(answer), destination, None, keep_owner=os.geteuid() == 0)
