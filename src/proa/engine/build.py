"""Builds: the image service's, with the engine's isolations to run steps and its way to images."""

from __future__ import annotations

import threading

from proa.engine.core import Core
from proa.engine.steps import Steps
from proa.image.build import solve
from proa.image.build.request import BuildRequest, Report
from proa.image.catalog import Image


def build(core: Core, request: BuildRequest, report: Report, cancel: threading.Event) -> Image:
    """Carry out a build.  Raises BuildError, Cancelled, and what fetching a base raises."""

    def fetch(name: str, pull: bool, platform: str) -> Image:
        return core.images.get(name)

    return solve.build(solve.Means(core.images, Steps(core), fetch), request, report, cancel)
