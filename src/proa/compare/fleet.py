"""Every instance a comparison makes: labelled, and gone when the comparison ends, however it ends.

    with Fleet(client) as fleet:
        instance = fleet.create(way, ["sleep", "9"])

The label is what counts at the end, not what anybody remembers, so one whose making was interrupted
is found too.  Ctrl-C does not interrupt the removal.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from proa.client.sdk import Client, Instance
from proa.compare.forms import Way
from proa.compare.probe import LABEL, Probe
from proa.errors import Conflict, EngineUnavailable, NotFound

RUN_LABEL = f"{LABEL}.run"
_LOOKS = 3  # for one whose making was under way when the comparison was interrupted
_PAUSE_SECONDS = 0.05


class Fleet:
    """The instances of one comparison, from `with` to its end."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.run = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._images: list[str] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        with uninterrupted():
            self.close()

    def create(
        self, way: Way, command: Sequence[str] = (), client: Client | None = None
    ) -> Instance:
        """An instance in a form, not started; `client` serves another thread."""
        options = self.labelled(way.options)
        return (client or self.client).create(way.image, command, **options)

    def probe(self, way: Way) -> Probe:
        """An instance in a form with the probe in it, to be entered."""
        return Probe(self.client, way.image, **self.labelled(way.options))

    def discard_image(self, name: str) -> None:
        """Remove an image, too, at the end."""
        self._images.append(name)

    def remove(self, instance: Instance) -> None:
        """Remove one; gone already is fine."""
        with suppress(NotFound, Conflict):
            instance.remove(force=True)

    def living(self) -> list[Instance]:
        """Those there are."""
        query: dict[str, object] = {
            "all": True,
            "filters": {"label": [f"{RUN_LABEL}={self.run}"]},
        }
        items = self.client.call("GET", "/containers/json", query)
        return [Instance(self.client, item["Id"]) for item in items]

    def close(self) -> None:
        """Remove all; an engine that is gone has its own ways."""
        with suppress(EngineUnavailable):
            for look in range(_LOOKS):
                for instance in self.living():
                    self.remove(instance)
                if look + 1 < _LOOKS:
                    time.sleep(_PAUSE_SECONDS)
            for name in self._images:
                with suppress(NotFound, Conflict):
                    self.client.remove_image(name, force=True)

    def labelled(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """What to create one with, so that it is among them."""
        labels = {**options.get("labels", {}), LABEL: "compared", RUN_LABEL: self.run}
        return {**options, "labels": labels}


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block's end, and is forgotten then: what it asks for is under way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
