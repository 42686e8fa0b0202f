"""Changes a subject could undergo; `verdict` asks the rules again after each.  Pure."""

from __future__ import annotations

from dataclasses import dataclass

from proa.advice.facts import Value

MB = 1_000_000


@dataclass(frozen=True)
class Change:
    """A fact as it could be; tried only where its key is known, but `always` if so."""

    key: str
    value: Value
    words: str
    always: bool = False


CHANGES = (
    # what its owner may say, or ask for
    Change("stated.trust", "untrusted", "it is not trusted (--trust untrusted)", always=True),
    Change("stated.trust", "own", "it is your own work (--trust own)", always=True),
    Change("stated.tenants", True, "others on the host do not trust it (--stated tenants=yes)",
           always=True),
    Change("stated.compliance", True, "a rule demands a kernel of its own", always=True),
    Change("stated.lifetime", "years", "it stays for years (--stated lifetime=years)", always=True),
    Change("stated.lifetime", "seconds", "it lives for seconds (--stated lifetime=seconds)",
           always=True),
    Change("stated.change", "daily", "it is changed daily (--stated change=daily)", always=True),
    Change("stated.change", "never", "it is never changed (--stated change=never)", always=True),
    Change("stated.state", "stateless", "it keeps no state (--stated state=stateless)",
           always=True),
    Change("stated.start_budget_ms", 100, "it must start within 100 ms (--budget start=100ms)",
           always=True),
    Change("stated.memory_budget_bytes", 16 * MB,
           "one may cost 16 MB of memory (--budget memory=16m)", always=True),
    Change("run.replicas", 50, "50 of it run", always=True),
    Change("run.privileged", True, "it asks to be privileged", always=True),
    Change("run.capabilities", ("SYS_ADMIN",), "it asks for the capability SYS_ADMIN",
           always=True),
    # what could be taken from it
    Change("os.init", "", "it ran one program and not an init system"),
    Change("os.kind", "linux", "its programs were made for Linux"),
    Change("os.disk", False, "it were an image of the disk's files (proa image from-disk)"),
    Change("os.foreign", False, "it were made for this host's processor"),
    Change("os.modules_loaded", (), "it loaded no kernel modules"),
    Change("os.kernel", "", "it brought no kernel"),
    Change("os.bootloader", "", "it had no boot loader"),
    Change("kernel.minimum", "3.2.0", "it were content with an older kernel"),
    Change("services", (), "its services were split off"),
    Change("services.started", (), "each of its services had an instance of its own"),
    Change("desktop", "", "it had no desktop"),
    Change("size.bytes", 50 * MB, "it were as small as 50 MB"),
    Change("run.interesting", "", "its main program needed no favour of the kernel"),
    Change("run.privileged", False, "it did not ask to be privileged"),
    Change("run.capabilities", (), "it asked for no capabilities"),
    Change("run.devices", (), "it asked for no devices of the host"),
    Change("run.host_namespaces", (), "it asked for no namespace of the host"),
    Change("run.host_paths", (), "it shared no directory with the host"),
    Change("run.engine_socket", False, "it did not ask for the engine's socket"),
    Change("run.sysctls", (), "it set no settings of the kernel"),
    Change("run.security_off", (), "its confinement stayed on"),
    Change("run.replicas", 1, "one of it ran"),
    Change("stated.compliance", False, "no rule demanded a kernel of its own"),
    Change("stated.tenants", False, "nobody on the host were to be protected from it"),
    Change("stated.start_budget_ms", 60_000, "it had a minute to start"),
    Change("stated.memory_budget_bytes", 4000 * MB, "it might cost 4 GB of memory"),
    Change("seen.failed", (), "both forms worked"),
    Change("seen.syscalls", (), "it made no system calls that a container is denied"),
    Change("measured.work_ratio", 1.0, "it worked as fast in a vm"),
    Change("measured.start_ms.vm", 50, "it started in 50 ms as a vm"),
    Change("measured.memory_bytes.vm", 20 * MB, "it took 20 MB as a vm"),
    Change("host.vm", True, "vms could run on this host"),
    Change("host.container", True, "containers could run on this host"),
)  # fmt: skip
