"""Facts and primitives of this Linux: mounts, cgroups, netlink, child processes, files."""
