"""Registries, for the SDK: requests with this user's login, progress as values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from proa.client import credentials
from proa.client.connection import Connection, image_path, own_path, target
from proa.client.progress import checked
from proa.client.values import Progress
from proa.errors import Corrupt

Told = Callable[[Progress], None]


def silent(step: Progress) -> None:
    """For those who do not want to know."""


def pull(connection: Connection, name: str, platform: str | None, progress: Told) -> None:
    """Have an image in the engine's store."""
    query: dict[str, object] = {"fromImage": name, "platform": platform}
    if "@" not in name and ":" not in name.rpartition("/")[2]:
        query["tag"] = "latest"
    for _ in _followed(connection, target("/images/create", query), name, progress):
        pass


def push(connection: Connection, name: str, compression: str | None, progress: Told) -> str:
    """Send an image; the digest it has there."""
    query: dict[str, object] = {"compression": compression}
    if ":" not in name.rpartition("/")[2]:
        query["tag"] = "latest"
    url = target(image_path(name, "/push"), query)
    pushed = list(_followed(connection, url, name, progress))
    if not pushed:
        raise Corrupt(f"the engine did not say what became of '{name}'")
    return str(pushed[-1]["Digest"])


def tags(connection: Connection, name: str) -> list[str]:
    """Every tag of a repository."""
    url = target("/proa/registry/tags", {"name": name})
    answer = connection.request("GET", url, None, _login(name)).json()
    return list(answer["Tags"])


def push_snapshot(connection: Connection, instance: str, name: str, to: str) -> str:
    """Send a snapshot with memory to a repository; its digest there."""
    url = target(own_path(instance, "/push-snapshot"), {"name": name, "to": to})
    return str(connection.request("POST", url, None, _login(to)).json()["Digest"])


def pull_snapshot(connection: Connection, source: str, name: str) -> str:
    """A new instance that goes on from a snapshot in a repository; its id."""
    url = target("/proa/snapshots/pull", {"from": source, "name": name})
    return str(connection.request("POST", url, None, _login(source)).json()["Id"])


def log_in(connection: Connection, registry: str, user: str, password: str) -> None:
    """Check a login, and keep it where Docker keeps it."""
    registry = credentials.normal(registry)
    kept = {"username": user, "password": password}
    request = {**kept, "serveraddress": credentials.key_of(registry)}
    answer = connection.request("POST", "/auth", request).json() or {}
    token = answer.get("IdentityToken")
    credentials.save(registry, {"identitytoken": token} if token else kept)


def _login(name: str) -> dict[str, str]:
    login = credentials.find(credentials.registry_of(name), name)
    return {"X-Registry-Auth": credentials.header(login)}


def _followed(
    connection: Connection, url: str, name: str, progress: Told
) -> Iterator[dict[str, Any]]:
    """The `aux` values of a stream; its other messages are told."""
    answer = connection.request("POST", url, None, _login(name))
    for message in checked(answer.json_lines()):
        if isinstance(message.get("aux"), dict):
            yield message["aux"]
        elif message.get("status"):
            detail = message.get("progressDetail") or {}
            step = Progress(
                str(message["status"]), str(message.get("id") or ""),
                int(detail.get("current") or 0), int(detail.get("total") or 0),
            )  # fmt: skip
            progress(step)
