"""Proa runs one image either as a container or as a virtual machine."""

__version__ = "0.1.0"
