"""What every place looks like inside, container or vm: kept once, so that both stay alike."""

SHARES = "/dev/.shares"  # below /dev, which moves into the new root together with it
# As Docker since 20.10: any user of a place may ping and bind low ports, its network is its own.
SYSCTLS = (("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 65535"))
READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
LINKS = (  # target, name below /dev
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
    ("/proc/kcore", "core"),
)
