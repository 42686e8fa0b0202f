"""Disks with labels: real file systems, small, with what tells a machine's kind."""

from __future__ import annotations

from tests.support import programs as p
from tests.support.cases import CONTAINER, VM, Case, Link, Tree
from tests.support.labelled.images import KERNEL, PROGRAM, SYSTEM

WANTS = "etc/systemd/system/multi-user.target.wants"
SHOP: Tree = {
    **p.systemd("nginx", "postgresql", "shop", "ssh", "cron"), **p.release("debian", "12"),
    "boot/vmlinuz-6.1.0-13-amd64": "kernel", "boot/grub/grub.cfg": "menu",
    "lib/systemd/system/shop.service":
        "[Unit]\nAfter=postgresql.service\nWants=postgresql.service\n[Service]\nUser=shop\n"
        "Environment=PORT=8000 DB_HOST=localhost SECRET_KEY=hunter2\n"
        "ExecStart=/opt/shop/serve --bind 127.0.0.1:8000\nStateDirectory=shop\n",
    "opt/shop/serve": "#!/usr/bin/python3\nDATABASE = \"dbname=shop\"\n",
    "etc/nginx/sites-enabled/default":
        "server {\n  listen 80;\n  listen [::]:443 ssl;\n  root /srv/shop;\n"
        "  location / { proxy_pass http://127.0.0.1:8000; }\n}\n",
    "srv/shop/index.html": "<h1>shop</h1>",
    "etc/postgresql/15/main/postgresql.conf":
        "data_directory = '/var/lib/postgresql/15/main'\nport = 5433\n",
    "var/lib/postgresql/15/main/PG_VERSION": "15\n",
    "etc/cron.d/shop": "*/5 * * * * shop /opt/shop/tidy --all\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nshop:x:1001:1001::/opt/shop:/bin/sh\n",
    "etc/hostname": "shop\n",
}  # fmt: skip
ROUTER: Tree = {
    **p.systemd("wg-quick@wg0", "nftables", "ssh"), **p.release("debian", "12"),
    "etc/modules-load.d/vpn.conf": "wireguard\n# of old\nnf_conntrack\n",
    "etc/sysctl.d/90-router.conf": "net.ipv4.ip_forward=1\nkernel.panic=10\n",
    "etc/wireguard/wg0.conf": "[Interface]\nListenPort = 51820\n",
}  # fmt: skip


def disk(name: str, label: str, principle: str, why: str, tree: Tree) -> Case:
    """A Linux disk's case."""
    return Case(name, "disk", label, principle, why, tree)


def strange(name: str, kind: str, why: str) -> Case:
    """A disk of another system, by the type of its partition."""
    return Case(name, "disk", VM, KERNEL, why, config={"type": kind})


CASES = (
    disk("disk-shop", VM, SYSTEM, "a whole server: web, application, database, jobs, logins", SHOP),
    disk("disk-router", VM, KERNEL, "it loads modules and sets the kernel", ROUTER),
    disk("disk-lamp", VM, SYSTEM, "web server and database that people log into", {
        **p.systemd("apache2", "mariadb", "ssh", "cron", "rsyslog"), **p.release("ubuntu", "22.04"),
        "etc/apache2/ports.conf": "Listen 8080\n",
        "etc/mysql/mariadb.conf.d/50-server.cnf":
            "[mysqld]\nbind-address = 0.0.0.0\ndatadir = /srv/mysql\n",
        "srv/mysql/ibdata1": "data",
    }),
    disk("disk-openrc", VM, SYSTEM, "a small system is one, too", {
        **p.shell(), **p.release("alpine", "3.20"), "sbin/init": Link("/bin/busybox"),
        "etc/inittab": "::sysinit:/sbin/openrc sysinit\n",
        "etc/runlevels/default/nginx": Link("/etc/init.d/nginx"),
        "etc/runlevels/default/redis": Link("/etc/init.d/redis"),
        "etc/runlevels/default/sshd": Link("/etc/init.d/sshd"),
        "etc/init.d/nginx": "#!/sbin/openrc-run\n", "etc/init.d/redis": "#!/sbin/openrc-run\n",
        "etc/init.d/sshd": "#!/sbin/openrc-run\n", "etc/redis.conf": "port 6380\ndir /srv/redis\n",
    }),
    disk("disk-sysvinit", VM, SYSTEM, "an old server with start scripts and its kernel", {
        **p.shell(), "sbin/init": p.dynamic(), "etc/inittab": "id:2:initdefault:\n",
        "etc/rc2.d/S01apache2": Link("../init.d/apache2"), "etc/init.d/apache2": "#!/bin/sh\n",
        "etc/rc2.d/S02mysql": Link("../init.d/mysql"), "etc/init.d/mysql": "#!/bin/sh\n",
        "etc/rc2.d/S03sshd": Link("../init.d/sshd"), "etc/init.d/sshd": "#!/bin/sh\n",
        "boot/vmlinuz-2.6.32-5-686": "kernel",
    }),
    disk("disk-desktop", VM, SYSTEM, "a desktop is a whole machine's", {
        **p.systemd("lightdm", "ssh"), **p.release("debian", "12"),
        "usr/share/xsessions/xfce.desktop": "[Desktop Entry]\n", "boot/vmlinuz-6.1.0": "kernel",
    }),
    disk("disk-one-program", CONTAINER, PROGRAM, "a file system of one program, without an init", {
        **p.release("debian", "12"), "app/serve": p.static(), "app/serve.toml": "port = 8080\n",
    }),
    strange("disk-freebsd", "a5", "a slice of FreeBSD"),
    strange("disk-windows", "07", "an NTFS partition"),
)  # fmt: skip
