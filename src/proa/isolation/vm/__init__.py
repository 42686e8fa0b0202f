"""Virtual machines: QEMU clones of templates, or full boots."""

from proa.isolation.vm.vms import Vms

__all__ = ["Vms"]
