"""What tests of forks, snapshots and migration share: a program that counts, and their calls."""

from __future__ import annotations

import re
import urllib.request
from typing import Any

from tests.support.http import ApiError
from tests.support.instances import Api, Instance, Place, eventually

COUNTER = 'i=0; while :; do i=$((i+1)); echo "n $i"; usleep 20000; done'
SERVER = f"mkdir /www; echo here > /www/index.html; httpd -p 80 -h /www; {COUNTER}"


def counting(vm: Place, script: str = COUNTER, **config: Any) -> Instance:
    """A vm whose main process counts aloud, once it does."""
    made = vm.start("busy", "sh", "-c", script, host={"Memory": 128 << 20} | config)
    eventually(lambda: len(counted(made)) > 3, 20)
    return made


def counted(instance: Instance) -> list[int]:
    """All numbers of its log."""
    return [int(number) for number in re.findall(r"n (\d+)\n", instance.logs().stdout)]


def goes_on(instance: Instance) -> int:
    """Waits for two further numbers; the newest."""
    last = max(counted(instance), default=0)
    eventually(lambda: max(counted(instance), default=0) > last + 2, 20, "it does not go on")
    return max(counted(instance))


def own(instance: Instance, method: str, rest: str, **query: Any) -> Any:
    """A call of what Proa alone has."""
    return instance.api.json(method, f"/proa/instances/{instance.id}{rest}", **query)


def fork(vm: Place, source: Instance, count: int = 1, name: str = "") -> list[Instance]:
    """Copies, which the fixture removes."""
    made = own(source, "POST", "/fork", count=count, name=name)
    copies = [Instance(source.api, item["Id"]) for item in made["Instances"]]
    vm.made += copies
    return copies


def restore(vm: Place, source: Instance, name: str, as_name: str) -> Instance:
    """A new instance of a snapshot."""
    made = own(source, "POST", "/restore", name=name, **{"as": as_name})
    vm.made.append(Instance(source.api, made["Id"]))
    return vm.made[-1]


def refusal(api: Api, method: str, path: str, **query: Any) -> tuple[int, str]:
    """Status and message of a call that must fail."""
    try:
        api.call(method, path, **query)
    except ApiError as error:
        return error.status, error.message
    raise AssertionError(f"{method} {path} was not refused")


def address(instance: Instance) -> str:
    """Its address on the bridge."""
    return str(instance.inspect()["NetworkSettings"]["IPAddress"])


def port(instance: Instance, inside: str = "80/tcp") -> int:
    """The host's port for one inside."""
    return int(instance.inspect()["NetworkSettings"]["Ports"][inside][0]["HostPort"])


def page(host: str, number: int = 80) -> str:
    """What its web server says; empty while it does not answer."""
    try:
        with urllib.request.urlopen(f"http://{host}:{number}/index.html", timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
