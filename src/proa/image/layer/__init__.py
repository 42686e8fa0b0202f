"""Layers: read, unpacked, written."""
