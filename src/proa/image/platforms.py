"""Which image of an index is meant: `os/arch[/variant]`, as OCI's image-spec and Docker choose."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proa.errors import ImageNotFound, Invalid
from proa.image.manifest import Descriptor
from proa.printable import clean

_WORD = re.compile(r"[A-Za-z0-9._-]{1,32}")
# What Linux, dpkg and rpm call otherwise than Go, and so OCI's image-spec.
_SPELLINGS = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""),
    "i386": ("386", ""), "i686": ("386", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6"), "armv5tel": ("arm", "v5"),
    "ppc64el": ("ppc64le", ""), "mips64el": ("mips64le", ""), "loongarch64": ("loong64", ""),
}  # fmt: skip
# What an architecture without a variant means, and which variants run where, the best first.
_PLAIN = {"amd64": "v1", "arm64": "v8", "arm": "v7"}
_RUNS = {
    ("amd64", "v1"): ("v1",), ("amd64", "v2"): ("v2", "v1"), ("amd64", "v3"): ("v3", "v2", "v1"),
    ("amd64", "v4"): ("v4", "v3", "v2", "v1"), ("arm64", "v9"): ("v9", "v8"),
    ("arm", "v8"): ("v8", "v7", "v6", "v5"), ("arm", "v7"): ("v7", "v6", "v5"),
    ("arm", "v6"): ("v6", "v5"),
}  # fmt: skip


@dataclass(frozen=True)
class Platform:
    """What an image is made for; a variant that goes without saying is empty."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    @property
    def level(self) -> str:
        """The variant, said out loud."""
        return self.variant or _PLAIN.get(self.architecture, "")


def here() -> Platform:
    """This machine."""
    return on(os.uname().machine)


def on(machine: str) -> Platform:
    """Linux on a machine as the kernel, dpkg or rpm calls it."""
    return Platform("linux", *_SPELLINGS.get(machine, (machine, "")))


def parse(text: str) -> Platform:
    """`os/arch[/variant]`, `arch`, or nothing for this machine.  Raises Invalid."""
    if not text:
        return here()
    words = text.split("/")
    if len(words) > 3 or not all(map(_WORD.fullmatch, words)):
        raise Invalid(f"invalid platform '{text[:100]}'", hint="a platform is OS/ARCH[/VARIANT]")
    words = [word.lower() for word in words]
    if len(words) == 1:
        words = [words[0], here().architecture] if words[0] == "linux" else ["linux", words[0]]
    architecture, variant = _SPELLINGS.get(words[1], (words[1], ""))
    return _plain(Platform(words[0], architecture, words[2] if len(words) == 3 else variant))


def of(document: dict[str, Any]) -> Platform:
    """What an index or a configuration says; what it does not is empty."""
    words = [document.get(key) for key in ("os", "architecture", "variant")]
    return _plain(Platform(*(word if isinstance(word, str) else "" for word in words)))


def _plain(given: Platform) -> Platform:
    goes_without_saying = (given.architecture, given.variant) in (("arm64", "v8"), ("amd64", "v1"))
    return Platform(given.os, given.architecture) if goes_without_saying else given


def is_image(item: Descriptor) -> bool:
    """Not a build's attestation, which lies among the images."""
    is_note = "vnd.docker.reference.type" in item.annotations
    return not is_note and item.platform.get("os") != "unknown"


def rank(wanted: Platform, offered: Platform) -> int | None:
    """How well an image fits, 0 the best; None when it does not run there."""
    if (offered.os, offered.architecture) != (wanted.os, wanted.architecture):
        return None
    key = (wanted.architecture, wanted.level)
    fitting = _RUNS.get(key, (wanted.level,))
    return fitting.index(offered.level) if offered.level in fitting else None


def choose(items: Sequence[Descriptor], wanted: Platform, what: str) -> Descriptor:
    """The image for a platform; the only one there is may be unlabelled.

    Raises ImageNotFound, its hint lists what there is.
    """
    images = list(filter(is_image, items))
    ranked = [(rank(wanted, of(item.platform)), item) for item in images]
    fitting = [(found, item) for found, item in ranked if found is not None]
    if fitting:
        return min(fitting, key=lambda pair: pair[0])[1]
    if len(images) == 1 and not images[0].platform:
        return images[0]
    offered = sorted({clean(str(of(item.platform)), 60) or "unlabelled" for item in images})
    listed = ", ".join(offered[:20]) + (", ..." if len(offered) > 20 else "")
    raise ImageNotFound(
        f"'{what}' has no image for '{wanted}'",
        hint=f"there is: {listed}" if offered else "it lists no image at all",
    )
