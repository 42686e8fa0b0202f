"""Virtual machines: QEMU clones of templates, or full boots."""
