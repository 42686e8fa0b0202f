"""The disk that tells a system's cloud-init what it is to be: data source NoCloud.

The user's data stays exactly the user's.  What is ours is vendor data: a boot hook, which runs at
every boot, whatever lists the user's configuration has.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from proa.isolation.vm import plans, qemu
from proa.isolation.vm.whole import iso
from proa.resources import Launch
from proa.spec import Hardware

LABEL = "CIDATA"
AGENT = "proa-agent"  # its file on the seed
NONE = "none"  # as user data: no seed at all
_EMPTY = "#cloud-config\n{}\n"

# `$1` is the agent's program, `$2` where it shall live.  Nothing is done where it runs already.
INSTALL = """\
install_agent() {
	if ! cmp -s "$1" "$2"; then
		mkdir -p "${2%/*}"
		cp "$1" "$2.new"
		chmod 755 "$2.new"
		mv "$2.new" "$2"
		if command -v restorecon >/dev/null; then restorecon "$2"; fi
	fi
	if [ -d /run/systemd/system ]; then
		cat > /etc/systemd/system/proa-agent.service <<-UNIT
			[Unit]
			Description=Proa's agent
			[Service]
			ExecStart=$2 guest
			Restart=always
			KillMode=process
			TasksMax=infinity
			[Install]
			WantedBy=multi-user.target
		UNIT
		systemctl daemon-reload
		systemctl -q --no-block enable proa-agent.service
		systemctl -q --no-block restart proa-agent.service
	else
		pkill -f "^$2 guest" || :
		setsid "$2" guest </dev/null >/dev/null 2>&1 &
	fi
}
"""
_HOOK = """\
#cloud-boothook
#!/bin/sh
set -eu
{install}
key='{key}'
if [ "$key" ]; then
	mkdir -p -m 700 /root/.ssh
	touch /root/.ssh/authorized_keys
	chmod 600 /root/.ssh/authorized_keys
	grep -qxF "$key" /root/.ssh/authorized_keys || echo "$key" >> /root/.ssh/authorized_keys
fi
seed=$(mktemp -d)
mount -o ro LABEL={label} "$seed"
[ ! -e "$seed/{agent}" ] || install_agent "$seed/{agent}" /usr/local/bin/{agent}
umount "$seed"
rmdir "$seed"
{shares}"""
# Shares come as one folder with a directory or file each; a kernel may know but one of both ways.
_SHARES = """\
shares=/run/proa/shares
mkdir -p "$shares"
if ! grep -qF " $shares " /proc/self/mounts; then
	mount -t virtiofs -o nosuid,nodev {tag} "$shares" 2>/dev/null ||
		mount -t 9p -o nosuid,nodev,{options} {tag} "$shares"
fi
share() {{
	if grep -qF " $2 " /proc/self/mounts; then return; fi
	if [ -d "$shares/$1" ]; then
		mkdir -p "$2"
	else
		mkdir -p "$(dirname "$2")"
		[ -e "$2" ] || : > "$2"
	fi
	mount --bind "$shares/$1" "$2"
}}
{lines}
"""


@dataclass(frozen=True)
class Seed:
    """What one machine is told; `agent` is our program for its architecture, empty for none.

    `key` is a public ssh key, one line, that may log in as root; `targets` are where its shares,
    in their order, shall be seen.
    """

    instance_id: str
    hostname: str
    agent: bytes
    key: str = ""
    user_data: str = ""
    network: str = ""
    targets: tuple[str, ...] = ()


def wanted(hardware: Hardware) -> bool:
    """Whether a machine gets one: when told so, and when it boots a system that may look for it."""
    return hardware.cloud_init != NONE and bool(hardware.cloud_init or hardware.boot != "cdrom")


def of(launch: Launch, agent: bytes) -> Seed:
    """The seed of a launch."""
    hardware = launch.hardware
    return Seed(
        launch.id, launch.hostname, agent, launch.ssh_key,
        hardware.cloud_init, hardware.cloud_init_network,
        tuple(share.target for share in launch.shares),
    )  # fmt: skip


def build(seed: Seed) -> bytes:
    """The disk's content.  Raises Invalid."""
    identity = {"instance-id": seed.instance_id, "local-hostname": seed.hostname}
    shares = mounts(seed.targets) if seed.targets else ""
    hook = _HOOK.format(install=INSTALL, key=seed.key, label=LABEL, agent=AGENT, shares=shares)
    files = {
        "meta-data": json.dumps(identity).encode() + b"\n",
        "user-data": (seed.user_data or _EMPTY).encode(),
        "vendor-data": hook.encode(),
    }
    if seed.agent:
        files[AGENT] = seed.agent
    if seed.network:
        files["network-config"] = seed.network.encode()
    return iso.build(LABEL, files, frozenset({AGENT}))


def mounts(targets: tuple[str, ...]) -> str:
    """Commands that mount every share at its target, parents before children."""
    ordered = sorted(enumerate(targets), key=lambda item: item[1].count("/"))
    lines = "\n".join(f"share {number} {shlex.quote(target)}" for number, target in ordered)
    return _SHARES.format(tag=qemu.SHARES_TAG, options=plans.SHARE_OPTIONS, lines=lines)
