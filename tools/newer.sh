#!/usr/bin/env bash
# Unpacks registry tools that Debian 12 has not yet, from the newest Debian, into build/peers/bin.
# Nothing is installed: they serve as judges in tests/interop.  The mirror is the one apt uses here.
set -euo pipefail
cd "$(dirname "$0")/.."
wanted=(crane oras)
to=build/peers

missing=()
for tool in "${wanted[@]}"; do [ -x "$to/bin/$tool" ] || missing+=("$tool"); done
if [ ${#missing[@]} -eq 0 ]; then
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
echo "newer tools: unpacking ${missing[*]}"
apt-get "${options[@]}" update
(cd "$work/packages" && apt-get "${options[@]}" download "${missing[@]}")
for package in "$work"/packages/*.deb; do dpkg-deb -x "$package" "$work/root"; done
mkdir -p "$to/bin"
for tool in "${missing[@]}"; do cp "$work/root/usr/bin/$tool" "$to/bin/$tool"; done
