"""An image's configuration document (OCI image-spec `config.md`), checked before it is believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from proa.errors import Corrupt
from proa.image import manifest, reference

NEVER = "0001-01-01T00:00:00Z"


@dataclass(frozen=True)
class ImageConfig:
    """The parts of the document that Proa acts on; `document` is all of it.

    `config` is the object Docker calls `Config`: Cmd, Entrypoint, Env, WorkingDir, User, ...
    """

    document: dict[str, Any]
    config: dict[str, Any]
    architecture: str
    os: str
    created: str
    diff_ids: tuple[str, ...]
    history: tuple[dict[str, Any], ...]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_set(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, value))


def _is_map(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, [*value, *value.values()]))


def _is_environment(value: Any) -> bool:
    return _is_texts(value) and not any(item.startswith("=") or not item for item in value)


_CONFIG_FIELDS: dict[str, Callable[[Any], bool]] = {
    "User": _is_text, "WorkingDir": _is_text, "StopSignal": _is_text, "Env": _is_environment,
    "Cmd": _is_texts, "Entrypoint": _is_texts, "Shell": _is_texts, "OnBuild": _is_texts,
    "ExposedPorts": _is_set, "Volumes": _is_set, "Labels": _is_map,
    "Healthcheck": lambda value: isinstance(value, dict),
}  # fmt: skip


def parse(data: bytes) -> ImageConfig:
    """Check a configuration document; `Corrupt` names the field that is wrong."""
    document = manifest.decode_object(data, "an image's configuration")
    config = document.get("config")
    if config is None:
        config = {}
    if not isinstance(config, dict):
        raise Corrupt("the field 'config' of an image's configuration is not an object")
    for key, is_right in _CONFIG_FIELDS.items():
        if config.get(key) is not None and not is_right(config[key]):
            raise Corrupt(f"the field '{key}' of an image's configuration is malformed")
    created = document.get("created") or NEVER
    created_seconds(created)
    return ImageConfig(
        document=document, config=config, created=created,
        architecture=_text(document, "architecture"), os=_text(document, "os"),
        diff_ids=_diff_ids(document.get("rootfs")), history=_history(document.get("history")),
    )  # fmt: skip


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key) or ""
    if not _is_text(value):
        raise Corrupt(f"the field '{key}' of an image's configuration is malformed")
    return str(value)


def _diff_ids(rootfs: Any) -> tuple[str, ...]:
    if not isinstance(rootfs, dict) or rootfs.get("type", "layers") != "layers":
        raise Corrupt("not a container image: its configuration has no 'rootfs' of layers")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list):
        raise Corrupt("the field 'diff_ids' of an image's configuration is not a list")
    for diff_id in diff_ids:
        reference.hexadecimal(diff_id)
    return tuple(diff_ids)


def _history(value: Any) -> tuple[dict[str, Any], ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Corrupt("the field 'history' of an image's configuration is malformed")
    return tuple(value)


def created_seconds(text: Any) -> int:
    """Seconds since 1970 of an RFC 3339 time."""
    try:
        return int(datetime.fromisoformat(_without_fraction(text)).timestamp())
    except (AttributeError, ValueError, TypeError, OverflowError) as error:
        raise Corrupt(f"invalid time '{str(text)[:60]}'") from error


def _without_fraction(text: str) -> str:
    """Nanoseconds are more than datetime takes."""
    head, dot, tail = text.partition(".")
    return head + tail.lstrip("0123456789") if dot else head


def now() -> str:
    """This moment as an image's creation time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
