#!/bin/bash
# FRR of Debian 13 beside the one that is installed: fetched once, unpacked into target/frr10, never installed.
# Usage: frr10.sh     prints the directory of its programs, which LAB_FRR takes
#
# The lab then runs them in the place of the installed ones (LAB_FRR=$(labs/local/lib/frr10.sh)).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"

FRR10=${LAB_FRR10:-$LAB_REPO/target/frr10}
SUITE=trixie
MIRROR=http://deb.debian.org/debian
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
# What FRR 10 links that Debian 12 has not, or has older; everything else it needs comes along, too.
PACKAGES=(frr)
RELOAD=usr/lib/frr/frr-reload.py

# apt with lists, cache and status of its own: it knows of nothing that is installed.
private_apt() {
  apt-get -o "Dir::Etc::sourcelist=$FRR10/apt/sources.list" -o Dir::Etc::sourceparts=- \
    -o "Dir::State=$FRR10/apt" -o "Dir::State::status=$FRR10/apt/status" -o "Dir::Cache=$FRR10/apt/cache" \
    -o Debug::NoLocking=1 -o APT::Sandbox::User=root -qq "$@"
}

fetch_packages() {
  mkdir -p "$FRR10/apt/lists/partial" "$FRR10/apt/cache/archives/partial"
  : >"$FRR10/apt/status"
  echo "deb [signed-by=$KEYRING] $MIRROR $SUITE main" >"$FRR10/apt/sources.list"
  private_apt update
  private_apt --yes --no-install-recommends -d install "${PACKAGES[@]}"
  # A script alone, which the installed Python runs.
  (cd "$FRR10/apt/cache/archives" && private_apt download frr-pythontools)
}

unpack_packages() {
  local package
  rm -rf "$FRR10/root.new" "$FRR10/root" && mkdir -p "$FRR10/root.new"
  for package in "$FRR10"/apt/cache/archives/*.deb; do dpkg-deb -x "$package" "$FRR10/root.new"; done
  mv "$FRR10/root.new" "$FRR10/root"
}

# Each program by the C library of its own release.
write_wrappers() {
  local program lib=$FRR10/root/usr/lib/x86_64-linux-gnu
  mkdir -p "$FRR10/bin"
  for program in usr/lib/frr/{zebra,mgmtd,staticd,bgpd} usr/bin/vtysh; do
    printf '#!/bin/sh\nexec %q --library-path %q --argv0 %q %q "$@"\n' "$lib/ld-linux-x86-64.so.2" \
      "$lib:$lib/frr" "${program##*/}" "$FRR10/root/$program" >"$FRR10/bin/${program##*/}"
    chmod +x "$FRR10/bin/${program##*/}"
  done
  printf '#!/bin/sh\nexec python3 %q "$@"\n' "$FRR10/root/$RELOAD" >"$FRR10/bin/frr-reload.py"
  chmod +x "$FRR10/bin/frr-reload.py"
}

if [[ ! -x $FRR10/bin/frr-reload.py ]]; then
  { [[ -e $FRR10/root/$RELOAD ]] || { fetch_packages && unpack_packages; }; } >&2
  write_wrappers
fi
"$FRR10/bin/bgpd" --version | head -n 1 >&2
printf '%s\n' "$FRR10/bin"
