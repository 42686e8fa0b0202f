"""Images with labels.  The first dozen are of real Debian packages."""

from __future__ import annotations

from typing import Any

from proa.advice.facts import Value
from tests.support import programs as p
from tests.support.cases import CONTAINER, VM, Case, File, Link, Tree

SYSTEM = "a whole system is a vm"
PROGRAM = "one program is a container"
KERNEL = "what needs another kernel is a vm"
POWER = "power over the kernel is a vm"
TRUST = "what is not trusted is a vm"
PASSING = "what comes and goes is a container"
STAYING = "what stays is a vm"
SEVERAL = "a few programs are not a system yet"


def image(
    name: str, label: str, principle: str, why: str, tree: Tree | None = None, **more: Any
) -> Case:
    """An image's case; `packages`, `stated`, `platform`, and all else is its configuration."""
    packages: tuple[str, ...] = more.pop("packages", ())
    stated: dict[str, Value] = more.pop("stated", {})
    platform: str = more.pop("platform", "linux/amd64")
    return Case(
        name, "image", label, principle, why, tree or {}, packages, more, platform, stated=stated
    )


SYSTEMD = ("systemd", "systemd-sysv")
DEBIAN = (
    image("deb-nginx", CONTAINER, PROGRAM, "a web server and its library",
          packages=("nginx",), Cmd=["nginx", "-g", "daemon off;"], ExposedPorts=["80/tcp"]),
    image("deb-redis", CONTAINER, PROGRAM, "one server; a cache starts anew anywhere",
          packages=("redis-tools", "redis-server"), Cmd=["redis-server"],
          ExposedPorts=["6379/tcp"], User="redis"),
    image("deb-haproxy", CONTAINER, PROGRAM, "one program, told everything by its files",
          packages=("haproxy",), Cmd=["haproxy", "-W", "-f", "/etc/haproxy.cfg"],
          ExposedPorts=["80/tcp", "443/tcp"]),
    image("deb-memcached", CONTAINER, PROGRAM, "one small program without state",
          packages=("memcached",), Cmd=["memcached", "-u", "nobody"],
          ExposedPorts=["11211/tcp"]),
    image("deb-ldap", CONTAINER, PROGRAM,
          "one server; that it keeps data does not make it a system",
          packages=("slapd",), Cmd=["/usr/sbin/slapd", "-d", "0"],
          ExposedPorts=["389/tcp"], Volumes=["/var/lib/ldap"], User="openldap"),
    image("deb-ldap-for-years", VM, STAYING,
          "a directory's database that stays for years is infrastructure",
          packages=("slapd",), Cmd=["/usr/sbin/slapd", "-d", "0"],
          ExposedPorts=["389/tcp"], Volumes=["/var/lib/ldap"],
          stated={"stated.lifetime": "years", "stated.state": "/var/lib/ldap",
                  "stated.change": "never"}),
    image("deb-systemd", VM, SYSTEM, "systemd is process 1, people log in, mail and jobs run",
          packages=(*SYSTEMD, "openssh-server", "cron", "rsyslog", "exim4-daemon-light"),
          Cmd=["/sbin/init"]),
    image("deb-lamp", VM, SYSTEM, "web server and database in one, under systemd",
          packages=(*SYSTEMD, "apache2-bin", "mariadb-server", "cron"),
          Cmd=["/lib/systemd/systemd"], ExposedPorts=["80/tcp", "3306/tcp"]),
    image("deb-systemd-unused", CONTAINER, PROGRAM,
          "systemd is there as a dependency and does not run",
          packages=(*SYSTEMD, "nginx"), Cmd=["nginx", "-g", "daemon off;"]),
    image("deb-supervisor", CONTAINER, SEVERAL, "a web server and its helper",
          packages=("supervisor", "nginx"),
          tree={"etc/supervisor/conf.d/all.conf": "[program:nginx]\n[program:helper]\n"},
          Cmd=["supervisord", "-n"], ExposedPorts=["80/tcp"]),
    image("deb-openvpn", VM, POWER, "it makes interfaces and routes: a network is infrastructure",
          packages=("openvpn",), Cmd=["openvpn", "--config", "/etc/openvpn/server.conf"],
          ExposedPorts=["1194/udp"]),
    image("deb-libvirt", VM, POWER, "a hypervisor's manager: systems inside another",
          packages=("libvirt-daemon", "qemu-system-x86"), Cmd=["libvirtd"]),
    image("deb-desktop", VM, SYSTEM, "a desktop is a whole machine's",
          packages=(*SYSTEMD, "xfce4-session", "lightdm"), Cmd=["/sbin/init"]),
    image("deb-mailserver", VM, SYSTEM, "mail, jobs and log under an init",
          packages=(*SYSTEMD, "exim4-daemon-light", "vsftpd", "cron", "rsyslog"),
          Cmd=["/sbin/init"], ExposedPorts=["25/tcp", "21/tcp"]),
)  # fmt: skip

PROGRAMS = (
    image("static-service", CONTAINER, PROGRAM, "one static program, nothing else",
          {"server": p.static()}, Entrypoint=["/server"], User="65532",
          ExposedPorts=["8080/tcp"]),
    image("plain-shell", CONTAINER, PROGRAM, "a base image: a shell and tools",
          p.shell(), Cmd=["sh"]),
    image("tini-worker", CONTAINER, PROGRAM, "a tiny init in front of one worker",
          {**p.shell(), "sbin/tini": p.static(), "app/worker": p.dynamic()},
          Entrypoint=["/sbin/tini", "--"], Cmd=["/app/worker"]),
    image("entry-script", CONTAINER, PROGRAM, "a start script that becomes one server",
          {**p.shell(), "entrypoint.sh": File("#!/bin/sh\nexec \"$@\"\n"), "bin/api": p.static()},
          Entrypoint=["/entrypoint.sh"], Cmd=["api", "serve"], ExposedPorts=["8000/tcp"]),
    image("python-app", CONTAINER, PROGRAM, "an interpreter and an app with a health check",
          {**p.shell(), **p.release("debian", "12"), "usr/bin/python3": p.dynamic(),
           "app/main.py": "print()\n"},
          Cmd=["python3", "/app/main.py"], User="app", ExposedPorts=["5000/tcp"],
          Healthcheck={"Test": ["CMD", "true"]}),
    image("test-run", CONTAINER, PASSING, "tests of a pipeline end by themselves",
          {**p.shell(), "usr/bin/pytest": File("#!/bin/sh\n")}, Cmd=["pytest", "-q"],
          stated={"stated.lifetime": "minutes", "stated.change": "daily"}),
    image("own-tool", CONTAINER, PASSING, "a tool of one's own that must be there at once",
          {"tool": p.static()}, Entrypoint=["/tool"],
          stated={"stated.trust": "own", "stated.start_budget_ms": 80}),
    image("own-tool-for-long", CONTAINER, PROGRAM, "one small program stays one for months",
          {"tool": p.static()}, Entrypoint=["/tool"], ExposedPorts=["80/tcp"],
          stated={"stated.trust": "own", "stated.lifetime": "months"}),
    image("foreign-tool", CONTAINER, PROGRAM, "one program for arm64: emulated as it is",
          {"tool": p.elf(183)}, platform="linux/arm64", Entrypoint=["/tool"],
          ExposedPorts=["80/tcp"]),
    image("dense-workers", CONTAINER, PASSING, "one may cost 16 MB",
          {**p.shell(), "worker": p.static()}, Cmd=["/worker"],
          stated={"stated.memory_budget_bytes": 16_000_000, "stated.state": "stateless"}),
    image("runit-pair", CONTAINER, SEVERAL, "a server and its exporter under runit",
          {**p.shell(), "sbin/runsvdir": p.static(), "etc/service/web/run": "#!/bin/sh\n",
           "etc/service/exporter/run": "#!/bin/sh\n"}, Cmd=["runsvdir", "/etc/service"]),
    image("two-under-s6", CONTAINER, SEVERAL, "a server and a log sender under s6",
          {**p.shell(), "init": File("#!/bin/sh\n"), "etc/s6-overlay/s6-rc.d/user/contents.d/web":
           "", "etc/s6-overlay/s6-rc.d/user/contents.d/log": ""}, Entrypoint=["/init"]),
)  # fmt: skip

SYSTEMS = (
    image("no-command-init", VM, SYSTEM, "without a command its init would start",
          {**p.systemd("sshd", "nginx"), **p.release("fedora", "40")}),
    image("openrc", VM, SYSTEM, "another init, the same kind of system",
          {**p.shell(), "sbin/openrc-init": p.static(), "etc/runlevels/default/sshd": "",
           "etc/runlevels/default/postgresql": "", "etc/runlevels/default/nginx": ""},
          Cmd=["/sbin/openrc-init"]),
    image("sysvinit", VM, SYSTEM, "an old server with start scripts",
          {**p.shell(), "sbin/init": p.dynamic(), "etc/inittab": "id:2:initdefault:\n",
           "etc/rc2.d/S01apache2": "", "etc/rc2.d/S02mysql": "", "etc/rc2.d/S03cron": ""},
          Cmd=["/sbin/init"], stated={"stated.lifetime": "years"}),
    image("system-with-kernel", VM, SYSTEM, "it brings kernel and boot loader along",
          {**p.systemd("sshd"), "boot/vmlinuz-6.1.0-18-amd64": b"MZ" + bytes(512),
           "boot/grub/grub.cfg": "menuentry\n"}, Cmd=["/sbin/init"]),
    image("started-by-script", VM, SYSTEM, "a script that starts a server's services, one by one",
          {**p.shell(), "start.sh": File("#!/bin/sh\nservice ssh start\nservice cron start\n"
           "service mysql start\nservice apache2 start\nservice postfix start\n"
           "service named start\ntail -f /dev/null\n")}, Cmd=["/start.sh"],
          ExposedPorts=["22/tcp", "25/tcp", "53/udp", "80/tcp", "3306/tcp"],
          stated={"stated.lifetime": "years", "stated.change": "yearly"}),
    image("foreign-system", VM, SYSTEM, "a whole system, and for another processor",
          {"lib/systemd/systemd": p.elf(183), "sbin/init": Link("/lib/systemd/systemd"),
           **p.units("sshd", "mosquitto")}, platform="linux/arm64", Cmd=["/sbin/init"]),
    image("supervised-suite", VM, SYSTEM, "seven servers in one are a server",
          p.supervised("nginx", "postgres", "redis", "cron", "postfix", "sshd", "rsyslogd"),
          Cmd=["supervisord"], ExposedPorts=["80/tcp", "22/tcp", "25/tcp", "5432/tcp", "6379/tcp"],
          Volumes=["/var/lib/postgresql", "/var/mail"], stated={"stated.lifetime": "years"}),
)  # fmt: skip

KERNELS = (
    image("windows-service", VM, KERNEL, "a Windows program",
          {"app.exe": p.windows()}, Cmd=["/app.exe"]),
    image("freebsd-tool", VM, KERNEL, "a FreeBSD program",
          {"bin/tool": p.elf(62, 9, "/libexec/ld-elf.so.1")}, Cmd=["/bin/tool"]),
    image("module-loader", VM, KERNEL, "it has its kernel modules loaded",
          {**p.shell(), "etc/modules-load.d/driver.conf": "wireguard\nzfs\n",
           "server": p.static()}, Cmd=["/server"]),
    image("newest-kernel", VM, KERNEL, "its program demands a kernel this host has not",
          {"server": p.needing((99, 1, 0))}, Cmd=["/server"]),
    image("compliance", VM, KERNEL, "a rule demands a kernel of its own",
          {"server": p.static()}, Cmd=["/server"], stated={"stated.compliance": "PCI zone"}),
    image("strangers-code", VM, TRUST, "code of a customer",
          {**p.shell(), "job": p.static()}, Cmd=["/job"], stated={"stated.trust": "untrusted"}),
    image("strangers-job", VM, TRUST, "a stranger's job, be it short and small",
          {**p.shell(), "job": p.static()}, Cmd=["/job"],
          stated={"stated.trust": "untrusted", "stated.lifetime": "minutes"}),
    image("tenants", VM, TRUST, "a plug-in of one customer beside others",
          {**p.shell(), "plugin": p.dynamic()}, Cmd=["/plugin"],
          stated={"stated.tenants": True, "stated.trust": "known", "stated.lifetime": "months"}),
    image("docker-inside", VM, POWER, "an engine inside",
          {**p.shell(), "usr/bin/dockerd": p.static()}, Cmd=["dockerd"]),
    image("sandbox-of-modules", VM, POWER, "it tries kernel modules",
          {**p.shell(), "sbin/insmod": p.static()}, Cmd=["insmod", "/driver.ko"]),
)  # fmt: skip

CASES: tuple[Case, ...] = (*DEBIAN, *PROGRAMS, *SYSTEMS, *KERNELS)
