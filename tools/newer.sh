#!/usr/bin/env bash
# Unpacks tools and schemas that Debian 12 has not yet, from the newest Debian, into build/peers.
# Nothing is installed: they are the judges of tests/interop.  The mirror is the one apt uses here.
set -euo pipefail
cd "$(dirname "$0")/.."
gocode=usr/share/gocode/src/github.com/opencontainers
# package, what of it, where to
wanted=("crane usr/bin/crane bin" "oras usr/bin/oras bin" "docker.io usr/sbin/dockerd bin"
        "docker-buildx usr/libexec/docker/cli-plugins/docker-buildx bin"
        "docker-compose usr/libexec/docker/cli-plugins/docker-compose bin"
        "golang-github-opencontainers-image-spec-dev $gocode/image-spec/schema image-spec")
to=build/peers

packages=() copies=()
for item in "${wanted[@]}"; do
    read -r package path folder <<<"$item"
    [ -e "$to/$folder/${path##*/}" ] || { packages+=("$package"); copies+=("$path $folder"); }
done
if [ ${#packages[@]} -eq 0 ]; then
    echo "newer tools: all ${#wanted[@]} are there"
    exit 0
fi

mirror=$(apt-cache policy | grep -oE 'https?://[^ ]+ bookworm/main' | head -n 1 | cut -d ' ' -f 1)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/packages"
chown -R _apt "$work/packages" "$work/lists" "$work/cache" 2>/dev/null || true
echo "deb [signed-by=$keyring] $mirror sid main" >"$work/sources"
options=(-qq -o "Dir::Etc::sourcelist=$work/sources" -o Dir::Etc::sourceparts=-
         -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work/cache")
echo "newer tools: unpacking ${packages[*]}"
apt-get "${options[@]}" update
(cd "$work/packages" && apt-get "${options[@]}" download "${packages[@]}")
for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$work/root"; done
for copy in "${copies[@]}"; do
    read -r path folder <<<"$copy"
    mkdir -p "$to/$folder"
    cp -r "$work/root/$path" "$to/$folder/"
done
