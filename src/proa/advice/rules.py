"""The rules of advice, each a row: which facts it rests on, for which form it speaks, how much.

A rule that `decides` says that the other form cannot do it at all; the others lean, and their
weights add up: 1 is a hint, 2 a reason, 4 a strong reason.  `criterion` is the article's, where it
is one.  Pure; docs/concepts/advice.md says why the weights are what they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from proa.advice import criteria as c
from proa.advice.conditions import (
    Condition,
    above,
    among,
    at_least,
    at_most,
    every,
    has,
    lacks,
    newer,
    none_of,
    one_of,
    unless,
)

CONTAINER, VM = "container", "vm"
MB = 1_000_000
GB = 1000 * MB

LONG = ("months", "years", "permanent")
SHORT = ("seconds", "minutes")
OFTEN = ("hourly", "daily", "weekly")
SELDOM = ("yearly", "never")

HOST_CAPABILITIES = frozenset(
    "SYS_ADMIN SYS_RAWIO SYS_BOOT SYS_TIME SYS_PTRACE SYSLOG BPF PERFMON MAC_ADMIN MAC_OVERRIDE "
    "DAC_READ_SEARCH ALL".split()
)
HOST_DIRECTORIES = frozenset(
    "/ /boot /dev /etc /lib/modules /proc /run /sys /usr /var /var/lib/docker /var/lib/kubelet "
    "/var/log /var/run".split()
)
PEOPLES_SERVICES = frozenset(
    "ssh sshd cron crond rsyslog syslog-ng exim4 postfix getty console-getty serial-getty telnetd "
    "inetd openbsd-inetd xinetd vsftpd atd systemd-logind".split()
)


@dataclass(frozen=True)
class Rule:
    """One row; `words` complete "because ...", `{0}` and `{1}` are its facts' values."""

    key: str
    form: str
    weight: float
    criterion: str
    when: Condition
    words: str
    decides: bool = False


def _must(key: str, form: str, when: Condition, words: str, criterion: str = "") -> Rule:
    return Rule(key, form, 10, criterion, when, words, decides=True)


DECIDING = (
    # it cannot be a container
    _must("another-system", VM, none_of("os.kind", "linux", ""),
          "its programs are for {0}, and a container has this Linux kernel", c.OS_INSIDE),
    _must("machine-disk", VM, has("os.disk"), "it is a machine's disk, which boots by itself",
          c.OS_INSIDE),
    _must("machine-parts", VM, has("run.machine"), "it asks for parts of a machine ({0})",
          c.OS_INSIDE),
    _must("loads-modules", VM, has("os.modules_loaded"),
          "it loads kernel modules ({0}); a container may not", c.OS_INSIDE),
    _must("module-capability", VM, among("run.capabilities", frozenset({"SYS_MODULE"})),
          "it asks to load kernel modules; a container may not", c.OS_INSIDE),
    _must("newer-kernel", VM, newer("kernel.minimum", "host.kernel"),
          "it needs Linux {0}, this host has {1}; a vm can be given a newer kernel (--kernel)",
          c.PORTABILITY),
    _must("kernel-settings", VM, has("run.sysctls"),
          "it sets {0}, which are the whole kernel's", c.SEMI_PERMANENT),
    _must("compliance", VM, has("stated.compliance"),
          "a rule demands a kernel of its own", c.RISKY),
    _must("failed-as-container", VM, among("seen.failed", frozenset({CONTAINER})),
          "it was tried as a container and did not work"),
    _must("no-containers-here", VM, lacks("host.container"), "containers cannot run on this host"),
    # it cannot be a vm
    _must("host-devices", CONTAINER, has("run.devices"),
          "it asks for devices of the host ({0}); a vm has its own"),
    _must("host-namespaces", CONTAINER, has("run.host_namespaces"),
          "it asks for the host's {0}; a vm has its own"),
    _must("engine-socket", CONTAINER, has("run.engine_socket"),
          "it asks for the engine's socket, which cannot be reached from another kernel "
          "(whoever has it has the host)"),
    _must("start-measured-too-slow", CONTAINER,
          above("measured.start_ms.vm", "stated.start_budget_ms"),
          "as a vm it took {0} ms to start, {1} are allowed", c.SCALE),
    _must("memory-measured-too-much", CONTAINER,
          above("measured.memory_bytes.vm", "stated.memory_budget_bytes"),
          "as a vm it took {0} of the host's memory, {1} are allowed", c.SCALE),
    _must("failed-as-vm", CONTAINER, among("seen.failed", frozenset({VM})),
          "it was tried as a vm and did not work"),
    _must("no-vms-here", CONTAINER, lacks("host.vm"), "vms cannot run on this host"),
)  # fmt: skip

FOR_A_VM = (
    # a whole system, not a program
    Rule("init", VM, 4, c.MONOLITH, has("os.init"),
         "{0} would be process 1: it is a whole system, not one program"),
    Rule("own-kernel", VM, 3, c.MONOLITH, has("os.kernel"),
         "it brings a kernel ({0}), which a container would leave unused"),
    Rule("boot-loader", VM, 2, c.MONOLITH, has("os.bootloader"), "it has a boot loader"),
    Rule("kernel-modules", VM, 1, c.MONOLITH, unless(has("os.modules"), has("os.kernel")),
         "it carries kernel modules ({0})"),
    Rule("several-services", VM, 1.5, c.MONOLITH,
         every(has("os.init"), at_least("services", 2)), "several services are enabled in it: {1}"),
    Rule("many-services", VM, 1.5, c.MONOLITH,
         every(has("os.init"), at_least("services", 4)),
         "so many services in one unit are updated, and break, together"),
    Rule("supervised-services", VM, 1, c.MONOLITH, at_least("services.started", 3),
         "its main program starts several services: {0}"),
    Rule("supervised-monolith", VM, 2, c.MONOLITH, at_least("services.started", 5),
         "that many services in one are a server, not a microservice: {0}"),
    Rule("logged-into", VM, 1.5, c.MONOLITH,
         every(has("os.init"), among("services", PEOPLES_SERVICES, 2)),
         "people log into it, or it sends their mail and runs their jobs"),
    Rule("desktop", VM, 3.5, c.MONOLITH, has("desktop"), "it has a desktop ({0})"),
    Rule("gigabytes", VM, 1.5, c.SCALE, at_least("size.bytes", 2 * GB),
         "it is measured in gigabytes ({0})"),
    Rule("many-packages", VM, 1, c.MONOLITH, at_least("packages.count", 500),
         "{0} packages are installed, as in a whole system"),
    Rule("many-ports", VM, 0.5, c.MONOLITH, at_least("run.ports", 5), "it serves many ports: {0}"),
    Rule("foreign", VM, 1, c.OS_INSIDE, has("os.foreign"),
         "it is made for another processor, and as a container each of its system calls is "
         "translated"),
    # what it may do to the host
    Rule("privileged", VM, 6, c.RISKY, has("run.privileged"),
         "it asks to be privileged: as a container it would own the host"),
    Rule("host-capabilities", VM, 3, c.RISKY, among("run.capabilities", HOST_CAPABILITIES),
         "it asks for powers over the kernel ({0}), which in a container is the host's"),
    Rule("network-capability", VM, 1, c.INFRASTRUCTURE,
         among("run.capabilities", frozenset({"NET_ADMIN"})),
         "it sets up networks itself ({0})"),
    Rule("confinement-off", VM, 2.5, c.RISKY, has("run.security_off"),
         "it asks for its confinement to be off ({0})"),
    Rule("denied-calls", VM, 2, c.RISKY, has("seen.syscalls"),
         "it was seen to make system calls that a container is denied: {0}"),
    Rule("kernels-favour", VM, 4.5, c.INFRASTRUCTURE, has("run.interesting"),
         "its main program needs the kernel's favour: {0}"),
    Rule("favoured-programs", VM, 0.5, c.INFRASTRUCTURE,
         unless(has("programs.interesting"), has("run.interesting")),
         "programs in it need the kernel's favour: {0}"),
    Rule("untrusted", VM, 6, c.RISKY, one_of("stated.trust", "untrusted"),
         "it is not trusted, and containers share the host's kernel with it"),
    Rule("set-user-id", VM, 0.5, c.RISKY,
         every(none_of("stated.trust", "own"), at_least("programs.setuid", 5)),
         "there are many set-user-id programs in it: {1}"),
    Rule("tenants", VM, 3, c.RISKY, has("stated.tenants"),
         "others on the host do not trust it, and containers share one kernel"),
    # how long it stays
    Rule("long-life", VM, 2, c.SEMI_PERMANENT, one_of("stated.lifetime", *LONG),
         "it is to stay for {0}"),
    Rule("seldom-changed", VM, 1, c.MONOLITH, one_of("stated.change", *SELDOM),
         "it is changed {0}"),
    Rule("keeps-state", VM, 1, c.SEMI_PERMANENT, none_of("stated.state", "stateless", "", "none"),
         "it keeps state: {0}"),
    Rule("database", VM, 0.5, c.SEMI_PERMANENT,
         every(has("database"), has("run.volumes")),
         "it is a database ({0}) and keeps data in {1}"),
    Rule("lasting-database", VM, 1.5, c.INFRASTRUCTURE,
         every(has("database"), one_of("stated.lifetime", *LONG)),
         "a database ({0}) that stays is infrastructure"),
    # what was measured
    Rule("isolation-gained", VM, 1, c.RISKY,
         unless(above("measured.isolation.vm", "measured.isolation.container", 1.2),
                one_of("stated.trust", "own")),
         "as a vm it was measured to be much better isolated ({0} of 100, else {1})"),
)  # fmt: skip

_ONE_PROGRAM = unless(
    lacks("os.init"), at_least("services.started", 3), has("os.kernel"), has("desktop")
)

FOR_A_CONTAINER = (
    Rule("one-program", CONTAINER, 2, c.CLOUD_NATIVE, _ONE_PROGRAM,
         "it is a program with its files, and no system around it"),
    Rule("one-of-an-app", CONTAINER, 1.5, c.CLOUD_NATIVE,
         unless(at_least("app.services", 2), has("os.init")),
         "it is one of an app's {0} services"),
    Rule("small", CONTAINER, 1, c.SCALE, at_most("size.bytes", 200 * MB),
         "it is measured in megabytes ({0})"),
    Rule("distroless", CONTAINER, 1, c.CLOUD_NATIVE, has("os.distroless"),
         "there is nothing in it but what the program needs"),
    Rule("one-port", CONTAINER, 0.5, c.CLOUD_NATIVE,
         every(at_least("run.ports", 1), at_most("run.ports", 1)), "it serves one port: {0}"),
    Rule("health-check", CONTAINER, 0.5, c.CLOUD_NATIVE, has("run.healthcheck"),
         "it tells whether it is well, as orchestrated services do"),
    Rule("own-user", CONTAINER, 0.5, c.CLOUD_NATIVE, none_of("run.user", "", "0", "root", "0:0"),
         "it does not run as root (but as {0})"),
    Rule("one-shot", CONTAINER, 1.5, c.CI_CD, has("run.one_shot"), "it ends by itself"),
    Rule("replicas", CONTAINER, 1.5, c.SAME_OS, at_least("run.replicas", 3), "{0} of it run"),
    Rule("many-replicas", CONTAINER, 2, c.SAME_OS, at_least("run.replicas", 10),
         "that many ({0}) would each bring a kernel"),
    Rule("short-life", CONTAINER, 2, c.CI_CD, one_of("stated.lifetime", *SHORT),
         "it lives for {0} only"),
    Rule("often-changed", CONTAINER, 1.5, c.CI_CD, one_of("stated.change", *OFTEN),
         "it is changed {0}"),
    Rule("stateless", CONTAINER, 1, c.CLOUD_NATIVE, one_of("stated.state", "stateless", "none"),
         "it keeps no state"),
    Rule("own-work", CONTAINER, 1, c.SAME_OS, one_of("stated.trust", "own"),
         "it is trusted as its owner's own work"),
    Rule("host-directories", CONTAINER, 3, c.INFRASTRUCTURE,
         among("run.host_paths", HOST_DIRECTORIES),
         "it works on the host's own directories ({0}), which a vm does not see as they are"),
    Rule("shared-directories", CONTAINER, 0.5, c.PORTABILITY,
         unless(has("run.host_paths"), among("run.host_paths", HOST_DIRECTORIES)),
         "it shares directories with the host ({0}), slower in a vm"),
    Rule("quick-start", CONTAINER, 2, c.SCALE,
         unless(at_most("stated.start_budget_ms", 150), has("measured.start_ms.vm")),
         "it must start within {0} ms, where vms are at their limit"),
    Rule("little-memory", CONTAINER, 3, c.SCALE,
         unless(at_most("stated.memory_budget_bytes", 24 * MB), has("measured.memory_bytes.vm")),
         "it may cost {0} of memory, which a vm needs for itself"),
    Rule("work-much-slower", CONTAINER, 2, c.SCALE, at_most("measured.work_ratio", 0.5),
         "as a vm it worked at {0} of a container's speed"),
    Rule("work-slower", CONTAINER, 1, c.SCALE,
         unless(at_most("measured.work_ratio", 0.8), at_most("measured.work_ratio", 0.5)),
         "as a vm it worked at {0} of a container's speed"),
    Rule("start-slower", CONTAINER, 0.5, c.SCALE,
         above("measured.start_ms.vm", "measured.start_ms.container", 3),
         "as a vm it started in {0} ms, as a container in {1}"),
    Rule("memory-more", CONTAINER, 1, c.SCALE,
         above("measured.memory_bytes.vm", "measured.memory_bytes.container", 4),
         "as a vm it took {0} of memory, as a container {1}"),
    Rule("emulated", CONTAINER, 0.5, c.SCALE, one_of("host.accelerator", "tcg"),
         "vms have no hardware help on this host"),
)  # fmt: skip

RULES: tuple[Rule, ...] = (*DECIDING, *FOR_A_VM, *FOR_A_CONTAINER)
