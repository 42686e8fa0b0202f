#!/usr/bin/env bash
# Installs the Debian packages Proa needs that are not here yet.  Safe to run again.
#   tools/install.sh           what running, building and the demo need
#   tools/install.sh tests     also what the test suite uses as real clients and images
#   tools/install.sh peers     also the engines the benchmark compares with
set -euo pipefail

run=(gcc libc6-dev make python3 python3-venv qemu-system-x86 qemu-utils erofs-utils e2fsprogs
     nftables iproute2 mmdebstrap dpkg-dev lz4 xz-utils zstd kmod
     grub-common grub-pc-bin grub-efi-amd64-bin mtools)
tests=(busybox-static docker.io podman buildah skopeo umoci docker-registry apache2-utils
       xorriso swtpm rpm dnf createrepo-c gnupg fdisk dosfstools xfsprogs
       btrfs-progs netpbm gvncviewer ovmf
       qemu-user-static qemu-system-arm qemu-efi-aarch64 gcc-aarch64-linux-gnu
       libc6-dev-arm64-cross fio wrk linux-perf smem strace chromium chromium-driver fonts-dejavu-core)
peers=(docker.io containerd runc podman conmon)

wanted=("${run[@]}")
for set in "$@"; do
    case "$set" in
    tests) wanted+=("${tests[@]}") ;;
    peers) wanted+=("${peers[@]}") ;;
    *) echo "install.sh: no such set '$set' (tests, peers)" >&2; exit 2 ;;
    esac
done

missing=()
for package in "${wanted[@]}"; do
    status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    echo "packages: all ${#wanted[@]} are installed"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "packages: missing ${missing[*]}" >&2
    echo "hint: run 'sudo tools/install.sh $*'" >&2
    exit 1
fi

# No service of a package may start by itself: a second engine would compete for this machine.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi

echo "packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
shows=0
[ -t 1 ] && shows=1
apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 "${missing[@]}" 2>&1 |
    awk -v shows="$shows" '
        /^(Get:|Setting up|Unpacking)/ {n++; if (shows) {printf "\rpackages: %4d steps  %-60.60s", n, $0; fflush()}}
        /^(E:|W:|dpkg: error)/ {print}
        END {printf "%spackages: installed in %d steps\n", shows ? "\n" : "", n}'
