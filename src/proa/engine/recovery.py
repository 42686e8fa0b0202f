"""After the engine was away: find every instance in its true state, remove what nobody owns."""

from __future__ import annotations

import logging
import os

from proa.agent import MAIN, Status
from proa.engine import chains, duplicate, immigrate, lifecycle, links, migrate, suspend
from proa.engine import instance as states
from proa.engine.core import Core
from proa.engine.instance import Instance
from proa.errors import ProaError
from proa.host import files

STATUS_RUNNING, STATUS_EXITED = 2, 3

log = logging.getLogger(__name__)


def recover(core: Core) -> None:
    """Adopt, settle or undo every instance; then sweep the host."""
    for instance in core.all():
        try:
            _recover_one(core, instance)
        except ProaError as error:
            log.error("instance '%s' cannot be recovered: %s", instance.name, error)
    owned = {item.record.place for item in core.all() if item.record.place}
    owned |= {name for item in core.all() for name in item.record.saved.get("places", ())}
    live = {item.id for item in core.all() if item.live or item.state == states.SUSPENDED}
    live |= migrate.guests(core)
    core.places.repair(owned)
    core.networks.repair(links.keepers(core))
    core.user_networks.repair(links.keepers(core))
    for item in core.all():
        chains.recover(core.directory(item.id))
    known = {item.id for item in core.all()}
    for name in set(os.listdir(core.config.root / "instances")) - known:
        files.remove_tree(core.config.root / "instances" / name)
    for isolation in core.isolations.values():
        isolation.repair(live)


def _recover_one(core: Core, instance: Instance) -> None:
    if instance.record.removing:
        _end(core, instance)
        instance.record.state = states.EXITED  # also of a copy that never came up
        lifecycle.remove(core, instance, volumes=instance.spec.remove)
    elif instance.live:
        _adopt(core, instance)
    elif instance.spec.remove and instance.state == states.EXITED:
        lifecycle.remove(core, instance, volumes=True)
    if not instance.removed:
        suspend.recovered(core, instance)


def _adopt(core: Core, instance: Instance) -> None:
    """Connect to a live instance's monitor, or write down how it ended."""
    record = instance.record
    if not record.place:
        _undo_start(core, instance)
        return
    try:
        running = core.isolation(instance.isolation).adopt(record.saved)
        processes = running.agent().state()
    except ProaError:
        _settle(core, instance)
        return
    if record.state == states.STARTING and running.facts["started_by"] in duplicate.COPIED:
        running.kill()  # it may not be itself yet
        _undo_start(core, instance)
        return
    main = next((item for item in processes if item.id == MAIN), None)
    if main is None or main.phase not in (STATUS_RUNNING, STATUS_EXITED):
        running.kill()
        _undo_start(core, instance)
        return
    if migrate.recovered(core, instance):
        return
    instance.next_process = 1 + max((item.id for item in processes), default=1)
    lifecycle.tie(core, instance, running)
    lifecycle.serve_addresses(core, instance)
    chains.resumed(core, instance)
    duplicate.recovered(core, instance)
    immigrate.recovered(core, instance)
    _resume_record(core, instance, main)


def _resume_record(core: Core, instance: Instance, main: Status) -> None:
    """The state of a process that runs; one that has just exited is reported by its monitor."""
    record = instance.record
    if record.state == states.STARTING:
        record.state, record.started_ns = states.RUNNING, record.started_ns or record.created_ns
    core.save(instance)
    running = instance.held
    if main.phase == STATUS_EXITED and running is not None:
        lifecycle.ended(core, instance, running, None)


def _settle(core: Core, instance: Instance) -> None:
    """Its monitor is gone: take the exit record, or say it was killed; release the rest."""
    record = instance.record
    place = core.config.root / "places" / record.place
    started = record.state != states.STARTING or (place / "exit").exists()
    exit, record.error = lifecycle.read_exit(place)
    record.exit_code, record.finished_ns, record.oom_killed = exit.code, exit.finished_ns, exit.oom
    _end(core, instance)
    if started:
        lifecycle.settle(core, instance)
    else:
        _undo_start(core, instance)


def _end(core: Core, instance: Instance) -> None:
    """Release the place of an instance whatever is left of it."""
    for name in (instance.record.place, *instance.record.saved.get("places", ())):
        if name:
            core.places.release(name)
    instance.record.place, instance.record.saved = "", {}


def _undo_start(core: Core, instance: Instance) -> None:
    """The engine died while it started this: the command never ran."""
    record = instance.record
    _end(core, instance)
    links.release(core, record.id)
    record.state = states.CREATED
    record.error = "the engine ended while it started this instance"
    core.save(instance)
    if instance.spec.remove and not suspend.suspended(core, instance):
        lifecycle.remove(core, instance, volumes=True)
