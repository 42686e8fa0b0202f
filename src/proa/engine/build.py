"""Builds: the image service's, with the engine's isolations to run steps and its way to images."""

from __future__ import annotations

import threading

from proa.engine.core import Core
from proa.engine.registries import Registries, Watch
from proa.errors import ImageNotFound
from proa.image import platforms, reference
from proa.image.build.request import BuildRequest, Report
from proa.image.catalog import Image
from proa.image.progress import silent


class Builder:
    """Carries out builds for one engine."""

    def __init__(self, core: Core, registries: Registries) -> None:
        self._core = core
        self._registries = registries

    def build(
        self, request: BuildRequest, report: Report, cancel: threading.Event, login: str = ""
    ) -> Image:
        """Carry out a build; `login` (the text of X-Registry-Auth) is for pulling bases
        whose registry has none in the request.

        Raises BuildError, Cancelled, and what fetching a base raises.
        """

        from proa.engine.steps import Steps  # a build's modules are not read at an engine's start
        from proa.image.build import solve

        def fetch(name: str, pull: bool, platform: str) -> Image:
            image = None if pull else self._local(name, platform)
            if image is None:
                watch = Watch(silent, cancel.is_set)
                own = request.logins.get(reference.parse(name).registry, login)
                image = self._registries.pull(name, platform, own, watch)
            return image

        means = solve.Means(self._core.images, Steps(self._core), fetch)
        return solve.build(means, request, report, cancel)

    def _local(self, name: str, platform: str) -> Image | None:
        """The image when it is here, for that platform."""
        try:
            image = self._core.images.get(name)
        except ImageNotFound:
            return None
        wanted = platforms.parse(platform)
        is_wanted = image.details.architecture in ("", wanted.architecture)
        return image if is_wanted or not platform else None
