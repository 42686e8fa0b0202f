"""What a prepared kernel has beside a guest's needs: for disks that boot elsewhere, other disks.

`more/` in its directory: `vmlinuz` as boot loaders want it, drivers and file systems as `NAME.ko`,
and `order.json`, the names by purpose in the order to load them.
"""

from __future__ import annotations

import json
from pathlib import Path

from proa.errors import Corrupt
from proa.isolation.vm import modules

DIRECTORY = "more"
DRIVERS = "drivers"
_WANTED = "wanted"  # the drivers asked for, of which a kernel may lack some
_ORDER = "order.json"
_IMAGE = "vmlinuz"


def keep(tree: modules.Tree, image: Path, target: Path) -> None:
    """Write the extras of a kernel into the new directory `target`; what it lacks is left out."""
    target.mkdir()
    orders = {DRIVERS: modules.order(tree, (), modules.DRIVERS), _WANTED: list(modules.DRIVERS)}
    for kind, names in modules.FILE_SYSTEMS.items():
        orders[kind] = modules.order(tree, (), names)
    kept = {name for purpose, names in orders.items() if purpose != _WANTED for name in names}
    for name in kept:
        (target / f"{name}.ko").write_bytes(modules.read(tree.files[name]))
    (target / _IMAGE).write_bytes(image.read_bytes())
    (target / _ORDER).write_text(json.dumps(orders))
    target.chmod(0o755)


def there(kernel: Path) -> bool:
    """Whether a prepared kernel's directory has them, for all that is known today."""
    try:
        orders = json.loads((kernel / DIRECTORY / _ORDER).read_text())
    except (OSError, ValueError):
        return False
    known = {DRIVERS, _WANTED, *modules.FILE_SYSTEMS}
    return set(orders) == known and orders[_WANTED] == list(modules.DRIVERS)


def image(kernel: Path) -> bytes:
    """The kernel as a boot loader loads it."""
    return (kernel / DIRECTORY / _IMAGE).read_bytes()


def names(kernel: Path, purpose: str) -> list[str]:
    """The modules for a purpose, in the order to load them."""
    try:
        orders = json.loads((kernel / DIRECTORY / _ORDER).read_text())
        return [str(name) for name in orders[purpose]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"the guest kernel '{kernel.name}' is damaged: {error}",
            hint=f"remove '{kernel}' and it is prepared again",
        ) from error


def load(kernel: Path, purpose: str) -> list[tuple[str, bytes]]:
    """The same with their contents."""
    directory = kernel / DIRECTORY
    return [(name, (directory / f"{name}.ko").read_bytes()) for name in names(kernel, purpose)]
