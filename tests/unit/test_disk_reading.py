"""A machine's services, found in the names on its disk and the texts of a few files."""

from __future__ import annotations

import json
import stat
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proa.advice.disk import machine, reading, systems, wanted
from proa.advice.disk.facts import described, facts_of
from proa.advice.disk.machine import Machine, Service
from proa.advice.disk.tree import Entry, of_texts
from proa.errors import Corrupt

WANTS = "/etc/systemd/system/multi-user.target.wants"
UNITS = "/lib/systemd/system"


def link(target: str) -> Entry:
    """A symbolic link."""
    return Entry(stat.S_IFLNK | 0o777, 0, target)


def enabled(**units: str) -> dict[str, Any]:
    """Units of systemd with their texts, started at boot; `_` stands for `-`."""
    found: dict[str, Any] = {
        "/lib/systemd/systemd": "x",
        "/sbin/init": link("../lib/systemd/systemd"),
    }
    for name, text in units.items():
        unit = f"{name.replace('_', '-')}.service"
        found[f"{UNITS}/{unit}"] = f"[Service]\n{text}\n"
        found[f"{WANTS}/{unit}"] = link(f"{UNITS}/{unit}")
    return found


def read(files: dict[str, Any]) -> Machine:
    """The machine of these files."""
    return reading.of_tree(of_texts(files), reading.Disk("d.img"))


def service(files: dict[str, Any], name: str) -> Service:
    """One service of it."""
    return next(item for item in read(files).services if item.name == name)


def ports(files: dict[str, Any], name: str) -> list[tuple[str, str, str]]:
    """A service's ports with address and source."""
    return [(str(port), port.address, port.source) for port in service(files, name).ports]


# -- names -----------------------------------------------------------------------------------------


def test_links_are_followed_below_the_root_only() -> None:
    tree = of_texts({
        "/etc/a": "text", "/etc/b": link("/etc/a"), "/etc/c": link("../../../etc/b"),
        "/etc/loop": link("loop"), "/etc/one": link("two"), "/etc/two": link("one"),
        "/etc/out": link("/proc/1/root"), "/etc/d": link("/etc"), "/etc/none": link("/gone"),
    })  # fmt: skip
    assert [tree.resolve(f"/etc/{name}") for name in "abc"] == ["/etc/a"] * 3
    assert tree.text("/etc/d/d/c") == "text"
    for name in ("loop", "one", "out", "none"):
        assert tree.resolve(f"/etc/{name}") == "" and not tree.file(f"/etc/{name}")


def test_only_small_files_that_tell_are_read() -> None:
    tree = of_texts({
        **enabled(web="ExecStart=/opt/web/run"), "/etc/nginx/nginx.conf": "x",
        "/etc/ssl/a.cnf": "x",
        "/opt/web/settings.py": "x", "/opt/web/node_modules/a/b.js": "x", "/etc/empty.conf": "",
        "/home/eve/.ssh/config": "x", "/opt/web/huge.conf": Entry(stat.S_IFREG | 0o644, 1 << 30),
        "/var/lib/secret/x.conf": "x", "/etc/zero.conf": Entry(stat.S_IFCHR | 0o644, 0),
    })  # fmt: skip
    found = wanted.wanted(tree)
    assert found[0] == f"{UNITS}/web.service"
    assert set(found[1:]) == {"/etc/nginx/nginx.conf", "/opt/web/settings.py"}


def test_what_is_read_is_bounded() -> None:
    tree, many = of_texts({}, ["/etc"]), of_texts({}, ["/etc"])
    for number in range(3000):
        tree.add(f"/etc/{number}.conf", Entry(stat.S_IFREG | 0o644, 9))
    assert len(wanted.wanted(tree)) == wanted.FILES_MAXIMUM and tree.cut
    many.add("/etc/" + "x" * 600, Entry(stat.S_IFREG | 0o644, 1))
    assert many.cut and "/etc/" + "x" * 600 not in many.entries
    for number in range(200):
        many.add(f"/etc/{number}.conf", Entry(stat.S_IFREG | 0o644, wanted.FILE_MAXIMUM))
    assert len(wanted.wanted(many)) == wanted.BYTES_MAXIMUM // wanted.FILE_MAXIMUM


# -- what is started -------------------------------------------------------------------------------


def test_units_drop_ins_and_masks() -> None:
    files = enabled(web="ExecStart=/opt/web/old\nUser=a\nEnvironment=A=1", gone="", other="")
    files |= {
        f"/etc/systemd/system/web.service.d/{name}": text
        for name, text in {
            "1.conf": "[Service]\nExecStart=\nExecStart=-/opt/web/run \\\n  --port 81\n#User=x\n",
            "2.conf": '[Service]\nEnvironment="B=2 3" C=4\nUser=b\n',
        }.items()
    }
    files["/etc/systemd/system/gone.service"] = link("/dev/null")
    found = service(files, "web")
    assert found.command.split() == ["/opt/web/run", "--port", "81"] and found.user == "b"
    assert [item.value for item in found.environment] == ["A=1", "B=2 3", "C=4"]
    assert found.environment[1].source == "/etc/systemd/system/web.service.d/2.conf:2"
    assert {item.name for item in read(files).services} == {"web", "other"}


def test_templates_sockets_timers_and_cron() -> None:
    files = enabled()
    files |= {
        f"{UNITS}/app@.service": "[Service]\nExecStart=/opt/app --port 90%i\n",
        f"{WANTS}/app@01.service": link(f"{UNITS}/app@.service"),
        f"{UNITS}/echo.socket": "[Socket]\nListenStream=7\nListenDatagram=[::]:7\n",
        "/etc/systemd/system/sockets.target.wants/echo.socket": link(f"{UNITS}/echo.socket"),
        "/etc/systemd/system/tidy.timer": "[Timer]\nOnCalendar=daily\n",
        "/etc/systemd/system/tidy.service": "[Service]\nExecStart=/opt/tidy\n",
        "/etc/systemd/system/timers.target.wants/tidy.timer":
            link("/etc/systemd/system/tidy.timer"),
        "/etc/cron.d/report": "MAILTO=x\n# no\n@daily shop /opt/report --now\n1 2 * * 0 root y\n",
        "/var/spool/cron/crontabs/eve": "*/5 * * * * ./poll\n",
    }  # fmt: skip
    found = {item.name: item for item in read(files).services}
    assert found["app@01"].source == f"{UNITS}/app@.service"
    assert [str(port) for port in found["echo"].ports] == ["7/tcp", "7/udp"]
    assert (found["tidy"].kind, found["tidy"].when, found["tidy"].role) == (
        "timer",
        "daily",
        "part",
    )
    report = found["report-3"]
    assert (report.user, report.when, report.command) == ("shop", "@daily", "/opt/report --now")
    assert (found["eve-1"].user, found["eve-1"].command) == ("eve", "./poll")


def test_an_alias_is_the_unit_it_stands_for() -> None:
    files = enabled(mariadb="")
    files[f"{UNITS}/mysql.service"] = link("mariadb.service")
    files[f"{WANTS}/mysql.service"] = link(f"{UNITS}/mysql.service")
    assert [item.name for item in read(files).services] == ["mariadb"]


def test_other_inits() -> None:
    files = {
        "/etc/init.d/nginx": "#!/bin/sh\n", "/etc/rc3.d/S10nginx": link("../init.d/nginx"),
        "/etc/rc3.d/K20mysql": link("../init.d/mysql"), "/etc/inittab": "x",
        "/etc/runlevels/default/redis": link("/etc/init.d/redis"), "/etc/init.d/redis": "x",
        "/etc/service/app/run": "#!/bin/sh\nexec /opt/app --port 5000\n", "/sbin/init": "elf",
        "/etc/supervisor/conf.d/a.conf": "[program:queue]\ncommand=/opt/queue --port=6000\n",
    }  # fmt: skip
    found = read(files)
    assert {item.name for item in found.services} == {"nginx", "redis", "app", "queue"}
    assert found.init is not None and found.init.value == "openrc"
    assert ports(files, "queue") == [("6000/tcp", "", "/etc/supervisor/conf.d/a.conf:2")]


# -- ports, data, users ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path", "text", "expected"),
    [
        ("nginx", "/etc/nginx/conf.d/a.conf", "server {\n listen 8080;\n listen [::]:443 ssl;\n"
         " # listen 1;\n listen unix:/x; listen 127.0.0.1:9; }",
         [("8080/tcp", "", 2), ("443/tcp", "", 3)]),
        ("apache2", "/etc/apache2/ports.conf", "Listen 10.0.0.1:81\n<IfModule x>\n Listen 443\n",
         [("81/tcp", "10.0.0.1", 1), ("443/tcp", "", 3)]),
        ("postgresql", "/etc/postgresql/15/main/postgresql.conf",
         "#port = 1\nport = 5433\nlisten_addresses = '*'\n", [("5433/tcp", "", 2)]),
        ("postgresql-15", "/var/lib/pgsql/15/data/postgresql.conf", "port = 5434\n",
         [("5434/tcp", "127.0.0.1", 1)]),
        ("redis-server", "/etc/redis/redis.conf", "bind 127.0.0.1 -::1\nport 6380\n",
         [("6380/tcp", "127.0.0.1", 2)]),
        ("mariadb", "/etc/mysql/mariadb.conf.d/50.cnf", "[mysqld]\nbind-address = 127.0.0.1\n",
         [("3306/tcp", "127.0.0.1", 2)]),
        ("mysql", "/etc/my.cnf", "[mysqld]\nport=3307\n", [("3307/tcp", "", 2)]),
        ("ssh", "/etc/ssh/sshd_config", "#Port 1\nPort 2222\n", [("2222/tcp", "", 2)]),
        ("haproxy", "/etc/haproxy/haproxy.cfg", "frontend a\n bind *:8443 ssl\n",
         [("8443/tcp", "", 2)]),
        ("memcached", "/etc/memcached.conf", "-m 64\n-p 11212\n-l 127.0.0.1\n",
         [("11212/tcp", "127.0.0.1", 2)]),
        ("mongod", "/etc/mongod.conf", "net:\n  port: 27018\n  bindIp: 0.0.0.0\n",
         [("27018/tcp", "", 2)]),
        ("dnsmasq", "/etc/dnsmasq.conf", "port=5353\n", [("5353/udp", "", 1)]),
        ("wg-quick@wg0", "/etc/wireguard/wg0.conf", "ListenPort = 51821\n", [("51821/udp", "", 1)]),
    ],
)  # fmt: skip
def test_ports_of_settings(
    name: str, path: str, text: str, expected: list[tuple[str, str, int]]
) -> None:
    files = {**enabled(), f"{WANTS}/{name}.service": link(f"{UNITS}/{name}.service")}
    files |= {f"{UNITS}/{name}.service": "[Service]\n", path: text}
    found = [(port, address, f"{path}:{line}") for port, address, line in expected]
    assert ports(files, name) == found
    assert all(port.sure for port in service(files, name).ports)


def test_without_settings_the_usual_port_is_a_guess() -> None:
    files = enabled(nginx="", postgresql="", app="ExecStart=/opt/app")
    assert [(str(p), p.address, p.sure) for p in service(files, "nginx").ports] == [
        ("80/tcp", "", False)
    ]
    assert service(files, "postgresql").ports[0].local
    assert service(files, "app").ports == ()


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("ExecStart=/a --bind 127.0.0.1:8000 --workers 2", ["8000/tcp"]),
        ("ExecStart=/a --port=3000 -p 3001", ["3000/tcp", "3001/tcp"]),
        ("ExecStart=/a --listen :9000", ["9000/tcp"]), ("ExecStart=/a -b [::]:8001", ["8001/tcp"]),
        ("Environment=PORT=5000 APP_PORT=5001\nExecStart=/a", ["5000/tcp", "5001/tcp"]),
        ("ExecStart=/a --report 3000x --port 99999", []),
    ],
)  # fmt: skip
def test_ports_of_commands(unit: str, expected: list[str]) -> None:
    assert [str(port) for port in service(enabled(a=unit), "a").ports] == expected


def test_a_local_socket_is_no_port() -> None:
    files = enabled(**{"php8.2_fpm": ""})
    files["/etc/php/8.2/fpm/pool.d/www.conf"] = "listen = /run/php/php8.2-fpm.sock\n"
    (port,) = service(files, "php8.2-fpm").ports
    assert (str(port), port.local, port.sure) == ("9000/tcp", True, False)
    assert port.source == "/etc/php/8.2/fpm/pool.d/www.conf:1: a local socket"


def test_logs_caches_and_run_time_are_no_data() -> None:
    unit = "StateDirectory=a\nReadWritePaths=/var/log/a -/run/a /etc/a /srv/a /var/lib/a-%i /\n"
    found = service(enabled(a=f"{unit}CacheDirectory=a\nExecStart=/opt/a"), "a")
    assert [item.value for item in found.data] == ["/var/lib/a", "/srv/a"]


def test_data_configuration_and_versions() -> None:
    files = enabled(
        postgresql="", shop="StateDirectory=shop\nReadWritePaths=/srv/shop\n"
        "EnvironmentFile=-/etc/shop.env\nExecStart=/opt/shop/run --config /etc/shop.toml",
    )  # fmt: skip
    files |= {
        "/etc/postgresql/15/main/postgresql.conf": "data_directory = '/srv/pg'\n",
        "/srv/pg/base": "12345", "/etc/shop.env": "A=1\n", "/etc/shop.toml": "x = 1\n",
        "/var/lib/dpkg/status": "Package: postgresql-15\nStatus: ok\nVersion: 15.4-1\n\n",
    }  # fmt: skip
    database, shop = service(files, "postgresql"), service(files, "shop")
    assert [found.value for found in database.data] == ["/srv/pg"]
    assert read(files).size_of("/srv/pg") == 5
    assert database.version is not None and database.version.source == "/var/lib/dpkg/status:3"
    assert [found.value for found in shop.data] == ["/var/lib/shop", "/srv/shop"]
    assert shop.configuration == ("/etc/shop.env", "/etc/shop.toml")
    del files["/var/lib/dpkg/status"]
    version = service(files, "postgresql").version
    assert version is not None and version.value == "15"


# -- what uses what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "other"),
    [
        ("DATABASE_URL=postgres://u:p@localhost/shop", "postgresql"),
        ("DATABASE_URL=postgresql://127.0.0.1:5432/shop", "postgresql"),
        ("CACHE=redis://127.0.0.1:6379/0", "redis"), ("REDIS_HOST=localhost", "redis"),
        ("DB_HOST=127.0.0.1", "postgresql"), ("API=http://localhost:9000/v1", "api"),
        ("PEER=127.0.0.1:9000", "api"), ("DB=/var/run/postgresql/.s.PGSQL.5432", "postgresql"),
        ("DATABASE_URL=postgres://db.example.com/shop", ""), ("NOTE=localhost", ""),
        ("SELF=http://127.0.0.1:8000", ""),
    ],
)  # fmt: skip
def test_needs_of_settings(setting: str, other: str) -> None:
    files = enabled(
        postgresql="", redis="", api="ExecStart=/opt/api/run --port 9000",
        web=f"Environment={setting}\nExecStart=/opt/web/run --port 8000",
    )  # fmt: skip
    found = service(files, "web").needs
    assert [need.service for need in found] == ([other] if other else [])
    assert all(need.source == f"{UNITS}/web.service:2" for need in found)
    assert "u:p@" not in str(found)


def test_needs_of_own_files_and_units() -> None:
    files = enabled(
        postgresql="", redis="", nginx="",
        web="After=redis.service\nRequires=gone.service\nExecStart=/opt/web/run -b 127.0.0.1:80",
    )  # fmt: skip
    files |= {
        "/opt/web/settings.py": "# 'dbname=x'\nD = 'dbname=shop user=shop'\n",
        "/opt/other/settings.py": "D = 'redis://localhost'\n",
        "/etc/nginx/sites-enabled/a": "upstream a { server localhost:80; }\n",
    }
    needs = {need.service: need for need in service(files, "web").needs}
    assert set(needs) == {"postgresql", "redis"}
    assert needs["postgresql"].source == "/opt/web/settings.py:2" and needs["postgresql"].strict
    assert needs["redis"].why == "After= of its unit" and not needs["redis"].strict


# -- risks and roles -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "unit", "role"),
    [
        ("nginx", "", "part"),
        ("own", "ExecStart=/opt/own", "part"),
        ("ssh", "", "machine"),
        ("systemd-x", "", "machine"),
        ("getty@tty1", "", "machine"),
        ("docker", "", "kernel"),
        ("wg-quick@wg0", "", "kernel"),
        ("lightdm", "", "kernel"),
        ("own", "ExecStart=/usr/sbin/modprobe dummy", "kernel"),
        ("own", "ExecStart=/opt/own --device /dev/ttyS0", "kernel"),
        ("own", "ExecStart=/opt/own >/dev/null", "part"),
        ("own", "AmbientCapabilities=CAP_NET_ADMIN CAP_CHOWN\nExecStart=/opt/own", "kernel"),
        ("own", "AmbientCapabilities=CAP_NET_BIND_SERVICE\nExecStart=/opt/own", "part"),
        ("own", "DeviceAllow=/dev/kvm rw\nExecStart=/opt/own", "kernel"),
        ("own", "ExecStart=/opt/own/start", "kernel"),
    ],
)
def test_roles(name: str, unit: str, role: str) -> None:
    files = {**enabled(), f"{WANTS}/{name}.service": link(f"{UNITS}/{name}.service")}
    files |= {f"{UNITS}/{name}.service": f"[Service]\n{unit}\n"}
    files["/opt/own/start"] = "#!/bin/sh\n# modprobe x\nexec /opt/own/real\niptables -A x\n"
    found = service(files, name)
    assert (found.role, bool(found.risks)) == (role, role == "kernel")
    if unit == "ExecStart=/opt/own/start":
        assert found.risks[0].source == "/opt/own/start:4"


# -- the machine -----------------------------------------------------------------------------------


def test_the_machine_itself() -> None:
    found = read({
        **enabled(lightdm=""), "/etc/os-release": 'ID="x"\nVERSION_ID=1\nPRETTY_NAME="X 1"\n',
        "/boot/vmlinuz-6.1.9": "k", "/boot/vmlinuz-6.1.10": "k", "/boot/grub/grub.cfg": "m",
        "/etc/modules": "# none\nloop\ndummy numdummies=2\n", "/etc/hostname": "h\n",
        "/etc/modules-load.d/a.conf": "dummy\nwireguard\n",
        "/etc/sysctl.d/90-a.conf": "net.x=1\nvm.swappiness = 1\n",
        "/etc/sysctl.d/10-a.conf": "a=1\n",
        "/etc/passwd": "root:x:0:0::/:/bin/sh\nd:x:9:9::/:/bin/sh\neve:x:1000:9::/:/bin/sh\nbad\n",
        "/usr/bin/su": Entry(stat.S_IFREG | 0o4755, 5), "/var/lib/dpkg/info/a.list": "x",
        "/lib64/ld-linux-x86-64.so.2": "x",
    })  # fmt: skip
    facts = {fact.key: fact for fact in facts_of(found).all}
    keys = ("os.name", "os.kernel", "os.bootloader", "desktop")
    assert [facts[key].value for key in keys] == ["x", "6.1.10", "grub", "lightdm"]
    assert facts["os.modules_loaded"].value == ("dummy", "wireguard")
    assert facts["os.modules_loaded"].source == "d.img:/etc/modules:3"
    assert facts["run.sysctls"].value == ("vm.swappiness",)
    assert facts["os.architecture"].value == "amd64"
    assert found.users == ("root", "eve") and found.setuid == ("/usr/bin/su",)
    assert (found.packages, found.hostname, found.title) == (1, "h", "X 1")


def test_a_desktop_is_told_by_its_sessions() -> None:
    found = read({"/usr/share/xsessions/xfce.desktop": "x", "/usr/share/doc/a": "x"})
    assert found.desktop is not None and found.desktop.value == "xfce"


def test_it_travels_as_json() -> None:
    found = read({
        **enabled(nginx="", web="ExecStartPre=/x\nExecStart=/opt/web/run --port 80\nUser=a"),
        "/etc/nginx/conf.d/a.conf": "proxy_pass http://localhost:80;\n", "/etc/modules": "a\n",
    })  # fmt: skip
    assert machine.load(json.loads(json.dumps(machine.document(found)))) == found
    for bad in ({}, {"name": "a"}, {"name": "a", "system": "", "system_source": "", "x": 1}):
        with pytest.raises(Corrupt):
            machine.load(bad)


def test_described_for_people() -> None:
    lines = list(described(read(enabled(nginx="", ssh="", docker=""))))
    assert lines[0] == "services that could be split off"
    assert f"  nginx: {WANTS}/nginx.service" in lines
    assert "      ports: 80/tcp (a guess: the usual one)" in lines
    assert "      it makes containers itself (/lib/systemd/system/docker.service)" in lines
    assert lines[-2:] == ["services of the machine itself", "  ssh"]


# -- other systems ---------------------------------------------------------------------------------


def mbr(kind: int) -> bytes:
    """A disk's first MiB with one partition of a type."""
    return bytes(450) + bytes([kind]) + bytes(59) + b"\x55\xaa" + bytes(1 << 12)


@pytest.mark.parametrize(
    ("kind", "head", "system"),
    [
        (0xA5, b"", "freebsd"), (0xA6, b"", "openbsd"), (0xA9, b"", "netbsd"),
        (0xBF, b"", "solaris"), (0x83, b"\xeb\x52\x90NTFS    ", "windows"), (0x83, b"", ""),
        (0xA6, bytes(512) + struct.pack("<I", 0x82564557) + bytes(200), "openbsd"),
        (0x83, bytes(8192 + 1372) + b"\x19\x01\x54\x19", "bsd"), (0x07, b"", "windows"),
    ],
)  # fmt: skip
def test_other_systems(kind: int, head: bytes, system: str) -> None:
    found = systems.of(mbr(kind), [(1, head)])
    assert (found.name if found else "") == system
    strange = reading.of_strange(reading.Disk("d"), mbr(kind), [(1, head)], "no root")
    assert (strange.system, strange.services, strange.problems) == (system, (), ("no root",))


@given(st.binary(max_size=2000))
@settings(max_examples=200, deadline=None)
def test_any_head_is_looked_at(head: bytes) -> None:
    systems.of(mbr(0x83), [(1, head)])
    systems.of(b"\0" * 512 + b"EFI PART" + head, [])
    systems.of(head, [])


TEXTS = st.text(alphabet="aA=:[]\\\n$%/'\"-# 0189.{}<>\x00é\u202e", max_size=80)


@given(TEXTS, TEXTS, st.sampled_from(["nginx", "postgresql", "own", "redis", "a'b", "x@y"]))
@settings(max_examples=200, deadline=None)
def test_any_text_on_a_disk_is_survived(unit: str, text: str, name: str) -> None:
    files = {**enabled(**{name: unit}), "/etc/nginx/nginx.conf": text, "/etc/os-release": text}
    files |= {"/etc/cron.d/a": text, "/etc/redis.conf": text, "/etc/passwd": text}
    found = read(files)
    assert machine.load(machine.document(found)) == found
    assert facts_of(found).all and list(described(found))
