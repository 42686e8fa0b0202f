"""Disks that boot: an image with a partition table, a boot loader, a kernel and an init."""
