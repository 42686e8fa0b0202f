"""What software is in an image, read from its layers merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from proa.errors import Corrupt, HostError
from proa.image import config
from proa.image.catalog import Image
from proa.image.layer.mounted import mounted
from proa.image.sbom import databases, languages, reading
from proa.image.sbom.component import Component, Facts, short

MAXIMUM_COMPONENTS = 200_000
_MAXIMUM_OS_RELEASE = 64 << 10
_SKIPPED = frozenset((b"proc", b"sys", b"dev", b"run"))


def gather(image: Image, layers: tuple[Path, ...], workspace: Path) -> Facts:
    """Read the layers, topmost first; `workspace` is a directory for copies.

    What one reader cannot understand is named in `missing`; the others go on.
    """
    components: set[Component] = set()
    missing: list[str] = []
    with mounted(layers) as root:
        system = _os_release(root)
        readers: tuple[tuple[str, Callable[[], Iterator[Component]]], ...] = (
            ("dpkg", lambda: databases.dpkg(root)),
            ("apk", lambda: databases.apk(root)),
            ("rpm", lambda: databases.rpm(root, workspace)),
            ("files", lambda: _files(root)),
        )
        for name, reader in readers:
            try:
                for component in filter(lambda found: found.name, reader()):
                    components.add(component)
                    if len(components) > MAXIMUM_COMPONENTS:
                        raise Corrupt(f"more than '{MAXIMUM_COMPONENTS}' packages")
            except (Corrupt, HostError) as error:
                missing.append(f"{name}: {error.message}")
    names = image.names or image.digests
    created = datetime.fromtimestamp(max(0, config.created_seconds(image.created)), UTC)
    return Facts(
        names[0] if names else image.id[7:19], image.manifest_digest,
        created.strftime("%Y-%m-%dT%H:%M:%SZ"), system, tuple(sorted(components)), tuple(missing),
    )  # fmt: skip


def _files(root: int) -> Iterator[Component]:
    for found in reading.walk(root, _SKIPPED):
        yield from languages.of(found)


def _os_release(root: int) -> dict[str, str]:
    for path in ("etc/os-release", "usr/lib/os-release"):
        try:
            data = reading.read(root, path, _MAXIMUM_OS_RELEASE)
        except Corrupt:
            continue
        if data is not None:
            return os_release(data.decode(errors="replace"))
    return {}


def os_release(text: str) -> dict[str, str]:
    """os-release(5), as far as it is plain assignments."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.isidentifier():
            found[key] = short(value.strip().strip("\"'"))
    return found
