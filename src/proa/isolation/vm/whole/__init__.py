"""Whole machines: vms that boot a system of their own from a disk or a CD."""

from proa.isolation.vm.whole.running import WholeMachine

__all__ = ["WholeMachine"]
