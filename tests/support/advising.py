"""A labelled case put before the engine, as a user would: by image, app file or disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proa.advice import document
from proa.advice.disk import facts
from proa.advice.facts import Fact
from tests.support import case_disks
from tests.support.case_images import image_archive
from tests.support.cases import Case
from tests.support.engine import EngineProcess


def ask(engine: EngineProcess, case: Case, work: Path) -> dict[str, Any]:
    """The advice on a case, by the API for an image, else by the command."""
    return {"image": _image, "app": _app, "disk": _disk}[case.kind](engine, case, work)


def _image(engine: EngineProcess, case: Case, work: Path) -> dict[str, Any]:
    engine.api.load(image_archive(case))
    facts = [document.fact(Fact(key, value, "stated")) for key, value in case.stated.items()]
    answer: dict[str, Any] = engine.api.json(
        "POST", "/proa/advise", {"Image": case.name, "Facts": facts}
    )
    return answer


def _app(engine: EngineProcess, case: Case, work: Path) -> dict[str, Any]:
    path = work / f"{case.name}.yaml"
    path.write_text(case.compose)
    done = engine.proa("advise", "--json", str(path))
    found = json.loads(done.stdout)["Advice"]
    chosen: dict[str, Any] = next(one for one in found if one["Name"] == case.service)
    return chosen


def _disk(engine: EngineProcess, case: Case, work: Path) -> dict[str, Any]:
    """A real file system's facts; tests/system/test_disk_facts.py has a guest read some of them."""
    place = work / case.name
    place.mkdir()
    machine = case_disks.by_debugfs(case_disks.make(case, place / "disk.img", place), place)
    found = [document.fact(one) for one in facts.facts_of(machine).all]
    answer: dict[str, Any] = engine.api.json(
        "POST", "/proa/advise", {"Kind": "disk", "Name": case.name, "Facts": found}
    )
    return answer
