"""Services that are known: units, images, ports, data, what their settings look like.  Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Product:
    """One row.  `image` is of the official ones, without a tag; `at` where it keeps its data."""

    key: str
    units: str  # a pattern of whole names
    image: str = ""
    at: str = ""
    ports: tuple[str, ...] = ()
    data: str = ""
    configuration: str = ""  # a pattern of paths
    packages: str = ""  # a pattern of packages that tell its version
    tag: str = r"\d+\.\d+"  # how much of the version is a tag
    schemes: tuple[str, ...] = ()
    sockets: str = ""  # a pattern: how its local sockets look in settings
    secrets: tuple[tuple[str, str], ...] = ()  # variables of the image that want a password
    words: tuple[str, ...] = field(default=())  # of variables that name its host


TABLE: tuple[Product, ...] = (
    Product("nginx", r"nginx|openresty", "nginx", "/usr/share/nginx/html", ("80/tcp",), "",
            r"/etc/nginx/(?:nginx\.conf|conf\.d/[^/]+\.conf|sites-enabled/[^/]+)",
            r"nginx(?:-.*)?"),
    Product("apache", r"apache2|httpd", "httpd", "/usr/local/apache2/htdocs", ("80/tcp",), "",
            r"/etc/(?:apache2|httpd)/(?:[^/]+\.conf|conf/[^/]+\.conf|conf\.d/[^/]+\.conf|"
            r"(?:sites|conf)-enabled/[^/]+)", r"apache2|httpd"),
    Product("caddy", "caddy", "caddy", "/data", ("80/tcp", "443/tcp"), "/var/lib/caddy",
            r"/etc/caddy/[^/]+", "caddy", r"\d+"),
    Product("haproxy", "haproxy", "haproxy", "", ("80/tcp",), "", r"/etc/haproxy/[^/]+\.cfg",
            "haproxy"),
    Product("varnish", "varnish", "varnish", "", ("6081/tcp",), "", r"/etc/varnish/[^/]+",
            "varnish"),
    Product("postgresql", r"postgresql(?:@.*|-\d+)?", "postgres", "/var/lib/postgresql/data",
            ("5432/tcp",), "/var/lib/postgresql",
            r"(?:/etc/postgresql/[^/]+/[^/]+|/var/lib/pgsql/(?:\d+/)?data)/"
            r"(?:postgresql\.conf|pg_hba\.conf|conf\.d/[^/]+\.conf)",
            r"postgresql-\d+|postgresql-server", r"\d+", ("postgres", "postgresql", "postgis"),
            r"/(?:var/)?run/postgresql", (("POSTGRES_PASSWORD_FILE", "postgres"),),
            ("PG", "POSTGRES", "POSTGRESQL")),
    Product("mariadb", r"mariadb", "mariadb", "/var/lib/mysql", ("3306/tcp",), "/var/lib/mysql",
            r"/etc/(?:my\.cnf|mysql/.*\.cnf|my\.cnf\.d/[^/]+\.cnf)",
            r"mariadb-server(?:-core)?(?:-[\d.]+)?",
            r"\d+\.\d+", ("mysql", "mariadb"), r"/(?:var/)?run/mysqld|/var/lib/mysql/mysql\.sock",
            (("MARIADB_ROOT_PASSWORD_FILE", "root"),), ("MYSQL", "MARIADB")),
    Product("mysql", r"mysqld?(?:@.*)?", "mysql", "/var/lib/mysql", ("3306/tcp",), "/var/lib/mysql",
            r"/etc/(?:my\.cnf|mysql/.*\.cnf|my\.cnf\.d/[^/]+\.cnf)",
            r"mysql-(?:community-)?server(?:-core)?(?:-[\d.]+)?", r"\d+\.\d+", ("mysql", "mysql2"),
            r"/(?:var/)?run/mysqld|/var/lib/mysql/mysql\.sock",
            (("MYSQL_ROOT_PASSWORD_FILE", "root"),), ("MYSQL",)),
    Product("redis", r"redis(?:-server)?(?:@.*)?", "redis", "/data", ("6379/tcp",),
            "/var/lib/redis", r"/etc/redis(?:/[^/]+)?\.conf", r"redis(?:-server)?", r"\d+\.\d+",
            ("redis", "rediss"), r"/(?:var/)?run/redis", (), ("REDIS",)),
    Product("valkey", r"valkey(?:-server)?(?:@.*)?", "valkey/valkey", "/data", ("6379/tcp",),
            "/var/lib/valkey", r"/etc/valkey(?:/[^/]+)?\.conf", r"valkey(?:-server)?", r"\d+\.\d+",
            ("valkey",)),
    Product("memcached", "memcached", "memcached", "", ("11211/tcp",), "",
            r"/etc/(?:memcached\.conf|sysconfig/memcached)", "memcached", r"\d+\.\d+",
            ("memcached", "memcache"), r"/(?:var/)?run/memcached", (), ("MEMCACHED", "MEMCACHE")),
    Product("mongodb", r"mongod|mongodb", "mongo", "/data/db", ("27017/tcp",), "/var/lib/mongodb",
            r"/etc/mongodb?\.conf|/etc/mongod\.conf", r"mongodb-org-server|mongodb-server",
            r"\d+\.\d+", ("mongodb", "mongodb+srv"), "", (), ("MONGO", "MONGODB")),
    Product("rabbitmq", "rabbitmq-server", "rabbitmq", "/var/lib/rabbitmq", ("5672/tcp",),
            "/var/lib/rabbitmq", r"/etc/rabbitmq/[^/]+", "rabbitmq-server", r"\d+\.\d+",
            ("amqp", "amqps"), "", (), ("RABBITMQ", "AMQP")),
    Product("elasticsearch", "elasticsearch", "elasticsearch", "/usr/share/elasticsearch/data",
            ("9200/tcp",), "/var/lib/elasticsearch", r"/etc/elasticsearch/[^/]+\.yml",
            "elasticsearch", r"\d+\.\d+\.\d+", (), "", (), ("ELASTICSEARCH", "ELASTIC")),
    Product("influxdb", "influxdb", "influxdb", "/var/lib/influxdb", ("8086/tcp",),
            "/var/lib/influxdb", r"/etc/influxdb/[^/]+", r"influxdb2?", r"\d+\.\d+", (), "",
            (), ("INFLUX", "INFLUXDB")),
    Product("php-fpm", r"php[\d.]*-fpm", "php:{}-fpm", "", ("9000/tcp",), "",
            r"/etc/php(?:/[\d.]+/fpm)?/(?:php-fpm\.conf|pool\.d/[^/]+|php-fpm\.d/[^/]+)",
            r"php[\d.]*-fpm", r"\d+\.\d+", (), r"/(?:var/)?run/php[\w./-]*"),
    Product("tomcat", r"tomcat\d*", "tomcat", "/usr/local/tomcat/webapps", ("8080/tcp",),
            "/var/lib/tomcat", r"/etc/tomcat\d*/server\.xml", r"tomcat\d+", r"\d+"),
    Product("grafana", "grafana-server", "grafana/grafana", "/var/lib/grafana", ("3000/tcp",),
            "/var/lib/grafana", r"/etc/grafana/[^/]+", "grafana", r"\d+\.\d+\.\d+"),
    Product("prometheus", "prometheus", "prom/prometheus", "/prometheus", ("9090/tcp",),
            "/var/lib/prometheus", r"/etc/prometheus/[^/]+\.yml", ""),
    Product("ssh", r"sshd?", ports=("22/tcp",), configuration=r"/etc/ssh/sshd_config(?:\.d/.*)?"),
    Product("wireguard", r"wg-quick@.*", ports=("51820/udp",),
            configuration=r"/etc/wireguard/[^/]+\.conf"),
    # No image speaks for itself here: the machine's own files do.
    Product("lighttpd", "lighttpd", ports=("80/tcp",), configuration=r"/etc/lighttpd/[^/]+\.conf"),
    Product("bind", r"named|bind9", ports=("53/udp", "53/tcp"), data="/var/cache/bind",
            configuration=r"/etc/(?:bind/[^/]+|named\.conf)"),
    Product("dnsmasq", "dnsmasq", ports=("53/udp",),
            configuration=r"/etc/dnsmasq\.(?:conf|d/[^/]+)"),
    Product("postfix", r"postfix(?:@.*)?", ports=("25/tcp",), data="/var/spool/postfix",
            configuration=r"/etc/postfix/(?:main|master)\.cf"),
    Product("exim", "exim4", ports=("25/tcp",), data="/var/spool/exim4",
            configuration=r"/etc/exim4/[^/]+"),
    Product("dovecot", "dovecot", ports=("143/tcp",), data="/var/mail",
            configuration=r"/etc/dovecot/(?:conf\.d/)?[^/]+\.conf"),
    Product("vsftpd", "vsftpd", ports=("21/tcp",), configuration=r"/etc/vsftpd(?:/vsftpd)?\.conf"),
    Product("slapd", "slapd", ports=("389/tcp",), data="/var/lib/ldap",
            configuration=r"/etc/(?:ldap|openldap)/[^/]+\.conf"),
    Product("samba", r"smbd|nmbd|samba", ports=("445/tcp",), data="/var/lib/samba",
            configuration=r"/etc/samba/smb\.conf"),
)  # fmt: skip
BY_KEY = {row.key: row for row in TABLE}
DATABASES = frozenset(
    "postgresql mariadb mysql redis valkey mongodb elasticsearch influxdb".split()
)

# Bound to the kernel it runs on: pattern of names → why.
KERNEL: tuple[tuple[str, str], ...] = (
    (r"docker|containerd|podman|crio|buildkit|lxc.*|lxd|incus.*", "it makes containers itself"),
    (r"libvirtd|virtqemud|virtlogd|qemu-kvm|xen.*|proxmox.*|pve.*", "it makes machines itself"),
    (r"kubelet|k3s.*|microk8s.*", "it is a node of a cluster"),
    (r"wg-quick@.*|wireguard.*|openvpn.*|strongswan.*|ipsec|xl2tpd|tinc.*|zerotier.*|tailscaled",
     "it makes network devices"),
    (r"nfs-(?:kernel-)?server|nfs-mountd|nfs-blkmap|nfsdcld|nfs-idmapd",
     "it serves files from within the kernel"),
    (r"tgt|iscsid?|open-iscsi|target|multipathd|drbd.*|ceph.*|glusterd", "it makes block devices"),
    (r"zfs-.*|lvm2-.*|mdmonitor|mdadm.*|bcache.*|cryptsetup.*", "it makes file systems and disks"),
    (r"keepalived|ipvsadm|bird.*|frr|quagga|hostapd|radvd|isc-dhcp-server.*|kea-dhcp.*|dhcpd",
     "it takes part in the machine's network itself"),
    (r"nftables|iptables|netfilter-persistent|firewalld|ufw|shorewall.*|fail2ban",
     "it sets the kernel's packet filter"),
    (r"dkms|loadmodules|kmod.*|akmods", "it builds and loads kernel modules"),
    (r"bluetooth|pcscd|ModemManager|gpsd|sane.*|cups|nvidia-.*", "it speaks to hardware"),
    (r"gdm\d*|lightdm|sddm|xdm|display-manager|weston", "it shows a desktop"),
)  # fmt: skip
# Of every machine, and no part of what it is for.
MACHINES = re.compile(
    r"(?:systemd-|getty|serial-getty|console-|dbus|cron|crond|ssh|sshd|rsyslog|syslog|networking|"
    r"NetworkManager|network|wpa_supplicant|apparmor|auditd|chrony|ntp|e2scrub|apt-|dpkg-|man-db|"
    r"logrotate|fstrim|unattended|cloud-|qemu-guest|keyboard-|polkit|udisks|accounts-daemon|snapd|"
    r"rngd|tuned|irqbalance|open-vm|vgauth|grub|selinux|kdump|sssd|rpcbind|dnf-|smartd|acpid|"
    r"anacron|atd|haveged|resolvconf|remote-|ifup|blk-availability|import-state|nis-|sysstat|"
    r"pollinate|finalrd|thermald|gpu-|secureboot|ua-|ubuntu-|debian-|motd|update-notifier|"
    r"popularity|plymouth|rsync|udev|urandom|hwclock|kbd|console|procps|sudo|hostname|bootlogs|"
    r"mount|umount|halt|reboot|rc\.|rcS|checkroot|checkfs|sendsigs|single|local$|killprocs|bootmisc|"
    r"devfs|hwdrivers|modules|sysctl|sysfs|swap|acpid|loopback|savecache|localmount|klogd|mdev)"
)

# How a product's settings look: files, line, what it says (listen, port, address, data, root).
Setting = tuple[str, re.Pattern[str], str]
_NUMBER, _WORD = r"['\"]?(\d{1,5})\b", r"['\"]?([^'\"#;\s]+)"
SETTINGS: tuple[Setting, ...] = (
    ("nginx", re.compile(r"\s*listen\s+([^;]+);"), "listen"),
    ("nginx", re.compile(r"\s*root\s+([^;\s]+)\s*;"), "root"),
    ("apache", re.compile(r"\s*Listen\s+(\S+)", re.I), "listen"),
    ("apache", re.compile(r"\s*DocumentRoot\s+\"?([^\"\s]+)", re.I), "root"),
    ("haproxy", re.compile(r"\s*bind\s+(\S+)"), "listen"),
    ("varnish", re.compile(r".*\s-a\s+(\S+)"), "listen"),
    ("lighttpd", re.compile(rf"\s*server\.port\s*=\s*{_NUMBER}"), "port"),
    ("lighttpd", re.compile(rf"\s*server\.document-root\s*=\s*{_WORD}"), "root"),
    ("postgresql", re.compile(rf"\s*port\s*=?\s*{_NUMBER}"), "port"),
    ("postgresql", re.compile(r"\s*listen_addresses\s*=?\s*'([^']*)'"), "address"),
    ("postgresql", re.compile(r"\s*data_directory\s*=?\s*'([^']+)'"), "data"),
    ("mysql", re.compile(rf"\s*port\s*=\s*{_NUMBER}"), "port"),
    ("mysql", re.compile(rf"\s*bind[-_]address\s*=\s*{_WORD}"), "address"),
    ("mysql", re.compile(rf"\s*datadir\s*=\s*{_WORD}"), "data"),
    ("mariadb", re.compile(rf"\s*port\s*=\s*{_NUMBER}"), "port"),
    ("mariadb", re.compile(rf"\s*bind[-_]address\s*=\s*{_WORD}"), "address"),
    ("mariadb", re.compile(rf"\s*datadir\s*=\s*{_WORD}"), "data"),
    ("redis", re.compile(rf"port\s+{_NUMBER}"), "port"),
    ("redis", re.compile(r"bind\s+-?(\S+)"), "address"),
    ("redis", re.compile(rf"dir\s+{_WORD}"), "data"),
    ("valkey", re.compile(rf"port\s+{_NUMBER}"), "port"),
    ("valkey", re.compile(r"bind\s+-?(\S+)"), "address"),
    ("valkey", re.compile(rf"dir\s+{_WORD}"), "data"),
    ("memcached", re.compile(r"\s*-p\s*(\d{1,5})"), "port"),
    ("memcached", re.compile(r"PORT=\"?(\d{1,5})"), "port"),
    ("memcached", re.compile(r"\s*-l\s*(\S+)"), "address"),
    ("mongodb", re.compile(rf"\s*port\s*[:=]\s*{_NUMBER}"), "port"),
    ("mongodb", re.compile(rf"\s*bind_?[iI]p\s*[:=]\s*{_WORD}"), "address"),
    ("mongodb", re.compile(rf"\s*db_?[pP]ath\s*[:=]\s*{_WORD}"), "data"),
    ("rabbitmq", re.compile(r"\s*listeners\.tcp\.\w+\s*=\s*(\S+)"), "listen"),
    ("elasticsearch", re.compile(rf"\s*http\.port\s*:\s*{_NUMBER}"), "port"),
    ("elasticsearch", re.compile(rf"\s*network\.host\s*:\s*{_WORD}"), "address"),
    ("elasticsearch", re.compile(rf"\s*path\.data\s*:\s*{_WORD}"), "data"),
    ("php-fpm", re.compile(r"\s*listen\s*=\s*(\S+)"), "listen"),
    ("tomcat", re.compile(r"\s*<Connector[^>]*\sport=\"(\d{1,5})\""), "port"),
    ("grafana", re.compile(rf"\s*http_port\s*=\s*{_NUMBER}"), "port"),
    ("ssh", re.compile(r"\s*Port\s+(\d{1,5})", re.I), "port"),
    ("ssh", re.compile(r"\s*ListenAddress\s+([\d.]+)", re.I), "address"),
    ("wireguard", re.compile(r"\s*ListenPort\s*=\s*(\d{1,5})"), "port"),
    ("vsftpd", re.compile(rf"\s*listen_port\s*=\s*{_NUMBER}"), "port"),
    ("dnsmasq", re.compile(rf"\s*port\s*=\s*{_NUMBER}"), "port"),
)  # fmt: skip
OF_THE_MACHINE = frozenset({"ssh"})
# What listens only to the machine itself unless its settings say otherwise.
LOCAL_BY_DEFAULT = frozenset("postgresql redis valkey mongodb elasticsearch".split())


def product(name: str) -> Product | None:
    """The row of a service's name."""
    template = name.partition("@")[0]
    return next((row for row in TABLE if re.fullmatch(row.units, name)), None) or next(
        (row for row in TABLE if re.fullmatch(row.units, template)), None
    )


def of_kernel(name: str) -> str:
    """Why a service of that name needs the kernel's favour; empty when nothing is known."""
    return next((why for pattern, why in KERNEL if re.fullmatch(pattern, name)), "")
