"""A machine's services, each with its program, ports, data, settings and risks.  Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace

from proa.advice.disk import needs, ports, products, units
from proa.advice.disk.machine import Found, Need, Service
from proa.advice.disk.products import Product
from proa.advice.disk.tree import Tree
from proa.advice.disk.units import Started, Unit

_PREFIX = re.compile(r"^[-@:+!|]*")
_POWERS = frozenset(
    "SYS_ADMIN SYS_MODULE SYS_RAWIO SYS_TIME SYS_BOOT NET_ADMIN SYS_PTRACE BPF PERFMON MAC_ADMIN "
    "SYSLOG MKNOD".split()
)
_KERNEL_WORDS = re.compile(
    r"(?:^|[\s;&|(/])(modprobe|insmod|losetup|dmsetup|mkfs\.\w+|iptables|ip6tables|nft|ipset|tc|"
    r"ip\s+(?:link|addr|route|tunnel|rule|netns)|brctl|ethtool|sysctl\s+-w|mount|swapon|kexec|"
    r"hwclock|setserial)\b"
)
_DEVICE = re.compile(
    r"(?<![\w./])(/dev/(?!null|zero|u?random|full|std\w+|fd\b|shm|tty\b|console|log\b|tcp/|udp/)[\w/.-]+)"
)
# Where nothing is kept, or not by the service; specifiers of systemd.
_NO_DATA = re.compile(r"/(?:$|etc|run|proc|sys|dev|tmp|var/(?:log|run|cache|tmp|lock))(?:/|$)|.*%")
_REQUIRES = ("Requires", "Requisite", "BindsTo", "Wants", "PartOf")
_ENV_FILE = re.compile(r"^-?(/\S+)$")
_TEXT = re.compile(
    r".*\.(?:py|rb|php|js|sh|pl|conf|cnf|cfg|ini|env|ya?ml|toml|json|xml|properties)"
)
_LINES_OF_ONE = 4000
_UNITS = (".service", ".socket", ".timer")


def read(tree: Tree) -> tuple[Service, ...]:
    """All of them, with what each uses of the others."""
    found = [_service(tree, item) for item in units.started(tree)]
    sockets = [item for item in found if item.kind == "socket"]
    whole = [_with_socket(item, sockets) for item in found if item.kind != "socket"]
    named = {item.name for item in whole}
    whole += [item for item in sockets if item.name not in named]
    return needs.of_all(whole, lambda item: _lines(tree, item))


def _with_socket(service: Service, sockets: list[Service]) -> Service:
    more = [port for item in sockets if item.name == service.name for port in item.ports]
    return replace(service, ports=(*service.ports, *more)) if more else service


def _service(tree: Tree, item: Started) -> Service:
    unit = _unit(tree, item)
    program = _program(tree, item)
    command = _PREFIX.sub("", program.one("ExecStart")) or item.command
    product = products.product(item.name) if item.kind == "service" else None
    environment = tuple(_environment(tree, program))
    listening = tuple(ports.listening(tree, product, command, environment, unit))
    risks = tuple(_risks(tree, item, program, command))
    return Service(
        item.name, item.kind, item.path, item.enabled, _role(item, product, risks, command),
        product.key if product else "", None, command, tuple(program.all("ExecStartPre")),
        program.one("User") or item.user, program.one("WorkingDirectory").lstrip("-"),
        forks=program.one("Type") == "forking",
        once=program.one("Type") == "oneshot" and item.kind == "service" and product is None,
        when=item.when or unit.one("OnCalendar") or unit.one("OnUnitActiveSec"),
        ports=listening,
        data=tuple(_data(tree, product, program)),
        configuration=tuple(dict.fromkeys(_configuration(tree, product, program, command))),
        environment=environment,
        needs=tuple(_order(unit, program)),
        risks=risks,
    )  # fmt: skip


def _unit(tree: Tree, item: Started) -> Unit:
    path, name = item.path, f"{item.name}.{item.kind}"
    return units.read(tree, path, name) if path.endswith(_UNITS) else Unit(path)


def _program(tree: Tree, item: Started) -> Unit:
    """The unit that has the program: a timer's and a socket's is another one."""
    name = f"{item.name}.service"
    if item.kind in ("timer", "socket"):
        path = units.path_of(tree, name)
        return units.read(tree, path, name) if path else Unit(item.path)
    return _unit(tree, item)


def _role(item: Started, product: Product | None, risks: tuple[Found, ...], command: str) -> str:
    if products.of_kernel(item.name):
        return "kernel"
    if product and product.key in products.OF_THE_MACHINE:
        return "machine"
    if product is None and products.MACHINES.match(item.name) and item.kind != "cron":
        return "machine"
    if item.kind in ("timer", "socket") and not command.startswith(("/opt", "/srv", "/usr/local")):
        own = item.path.startswith("/etc/")
        return "part" if own and command else "machine"
    return "kernel" if risks else "part"


# -- data, settings, order --------------------------------------------------------------------


def _data(tree: Tree, product: Product | None, unit: Unit) -> Iterator[Found]:
    seen: set[str] = set()
    for found in _data_said(tree, product, unit):
        path = posixpath.normpath(found.value)
        if path not in seen and path.startswith("/") and not _NO_DATA.match(path):
            seen.add(path)
            yield Found(path, found.source)


def _data_said(tree: Tree, product: Product | None, unit: Unit) -> Iterator[Found]:
    if product:
        said = list(ports.settings(tree, product, "data"))
        yield from said
        roots = ports.settings(tree, product, "root")
        yield from (found for found in roots if tree.sizes.get(found.value))
        if not said and product.data and tree.has(product.data):
            yield Found(product.data, f"usual for {product.key}")
    for found in unit.words("StateDirectory"):
        yield Found(f"/var/lib/{found.value.partition(':')[0]}", found.source)
    for found in unit.words("ReadWritePaths"):
        yield Found(found.value.lstrip("-+"), found.source)


def _configuration(tree: Tree, product: Product | None, unit: Unit, command: str) -> Iterator[str]:
    if product and product.configuration:
        yield from list(tree.matching(re.compile(product.configuration)))[:20]
    for found in unit.words("EnvironmentFile"):
        if (match := _ENV_FILE.match(found.value)) and tree.file(match[1]):
            yield match[1]
    for word in re.split(r"[\s=]", command)[1:]:
        if word.startswith(("/etc/", "/opt/", "/srv/")) and tree.file(word) in tree.texts:
            yield word


def _environment(tree: Tree, unit: Unit) -> Iterator[Found]:
    for found in unit.all("Environment"):
        for word in re.findall(r"\"([^\"]*)\"|'([^']*)'|(\S+)", found.value):
            if "=" in (text := "".join(word)):
                yield Found(text, found.source)
    for found in unit.words("EnvironmentFile"):
        path = found.value.lstrip("-")
        for number, line in tree.lines(path):
            if re.match(r"\s*(?:export\s+)?[A-Za-z_]\w*=", line):
                yield Found(line.strip().removeprefix("export "), f"{path}:{number}")


def _order(unit: Unit, program: Unit) -> Iterator[Need]:
    """What the unit itself says; an order alone is no need."""
    for source in (unit, program) if unit is not program else (unit,):
        for key in (*_REQUIRES, "After"):
            for found in source.words(key):
                if found.value.endswith((".service", ".socket")):
                    name = found.value.rpartition(".")[0]
                    strict = key != "After"
                    yield Need(name, f"{key}= of its unit", found.source, strict=strict)


# -- risks ------------------------------------------------------------------------------------


def _risks(tree: Tree, item: Started, unit: Unit, command: str) -> Iterator[Found]:
    if why := products.of_kernel(item.name):
        yield Found(why, item.path)
        return
    if products.product(item.name) or products.MACHINES.match(item.name):
        return
    for found in unit.all("AmbientCapabilities"):
        words = {word.upper().removeprefix("CAP_") for word in found.value.split()}
        if gained := sorted(words & _POWERS):
            yield Found(f"it is given powers over the kernel ({', '.join(gained)})", found.source)
    for found in unit.words("DeviceAllow"):
        if match := _DEVICE.match(found.value):
            yield Found(f"it works on the device {match[1]}", found.source)
    lines = [
        *(entry for key in ("ExecStart", "ExecStartPre") for entry in unit.all(key)),
        *([Found(command, item.path)] if not unit.settings else []),
        *_script(tree, command),
    ]
    for line in lines:
        if match := _KERNEL_WORDS.search(line.value):
            yield Found(f"it runs '{match[1]}'", line.source)
        elif match := _DEVICE.search(line.value):
            yield Found(f"it works on the device {match[1]}", line.source)


def _script(tree: Tree, command: str) -> Iterator[Found]:
    """The lines of a shell script that is run."""
    for word in command.split()[:2]:
        path = tree.file(word) if word.startswith("/") else ""
        text = tree.texts.get(path, "")
        if path and re.match(r"#!.*\b(?:ba|da|k|z)?sh\b", text):
            for number, line in list(tree.lines(path))[:_LINES_OF_ONE]:
                if not line.lstrip().startswith("#"):
                    yield Found(line, f"{path}:{number}")


# -- what its settings are --------------------------------------------------------------------


def _lines(tree: Tree, service: Service) -> Iterator[Found]:
    """Lines in which a service may name another one: its settings, and its own files."""
    if service.role != "part":
        return
    yield from service.environment
    yield Found(service.command, service.source)
    for path in dict.fromkeys((*service.configuration, *_own_files(tree, service))):
        for number, line in tree.lines(path):
            yield Found(line, f"{path}:{number}")


def _own_files(tree: Tree, service: Service) -> list[str]:
    """Texts below the directories of an application of its own."""
    if service.product:
        return []
    roots = {service.directory} if service.directory else set()
    for word in service.command.replace("=", " ").split():
        if word.startswith(("/opt/", "/srv/", "/var/www/", "/home/")):
            entry = tree.entries.get(word.rstrip("/"))
            roots.add(word if entry and entry.directory else posixpath.dirname(word))
    tops = tuple(f"{root.rstrip('/')}/" for root in roots if root.count("/") > 1 and root != "/")
    if not tops:
        return []
    return [path for path in sorted(tree.texts) if path.startswith(tops) and _is_text(path)]


def _is_text(path: str) -> bool:
    return bool(_TEXT.fullmatch(path)) or posixpath.basename(path).startswith(".env")
