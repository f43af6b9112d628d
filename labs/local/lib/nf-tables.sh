#!/bin/bash
# nf_tables for user-mode Linux with ingress chains of ports, which Debian's is built without: that one module, of the
# very sources that the installed user-mode-linux was made of, into target/nf-tables. Made once, in two minutes.
# Usage: nf-tables.sh     prints the module's path, which LAB_NF_TABLES takes
#
# The lab's kernel then loads it in place of its own (LAB_NF_TABLES=$(labs/local/lib/nf-tables.sh)).
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
. "$LAB_LOCAL/lib/install.sh"

# The compiler of kernels, and what it is configured by.
PACKAGES=(gcc libc6-dev make flex bison bc xz-utils)

fetch() { (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download "$1" >/dev/null); }

# unpack_sources ARCHIVE: without what no module needs, which is most of it.
unpack_sources() {
  mkdir "$work/linux"
  dpkg-deb --fsys-tarfile "$1" | tar -xO --wildcards './usr/src/linux-source-*.tar.xz' | xz -dc |
    tar -x -C "$work/linux" --strip-components=1 --exclude='*/Documentation' --exclude='*/tools/testing' \
      --exclude='*/drivers/*.[ch]' --exclude='*/fs/*.[ch]' --exclude='*/sound/*.[ch]' \
      --exclude='*/arch/[a-tv-wyz]*/*.[chS]' --exclude='*.dts*'
  # Read with everybody's Kconfig.
  mkdir "$work/linux/Documentation" && : >"$work/linux/Documentation/Kconfig"
}

# The configuration of the kernel that is installed; where manuals are left out of the system, that of its package.
configure() {
  local config=/usr/share/doc/user-mode-linux/config.gz
  if [[ -e $config ]]; then
    zcat "$config"
  else
    fetch user-mode-linux
    dpkg-deb --fsys-tarfile "$work"/user-mode-linux_*.deb | tar -xO ".$config" | zcat
  fi | sed 's/^# CONFIG_NF_TABLES_NETDEV is not set$/CONFIG_NF_TABLES_NETDEV=y/' >"$work/linux/.config"
  build olddefconfig
  grep -qx CONFIG_NF_TABLES_NETDEV=y "$work/linux/.config" || die 'the kernel cannot be configured so'
}

build() { make -s -C "$work/linux" -j "$(nproc)" ARCH=um "$@"; }

make_module() {
  local sources
  # "linux (= 6.1.176-1)"
  sources=$(dpkg-query -W -f '${Built-Using}' user-mode-linux | sed -n 's/.*linux (= \([^)]*\)).*/\1/p')
  [[ -n $sources ]] || die 'user-mode-linux does not say which sources it was built of'
  work=$(mktemp -d "$NF_TABLES/work.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  fetch "linux-source-${release%.*}=$sources" || die "Debian no longer has linux-source-${release%.*} $sources"
  unpack_sources "$work"/linux-source-*.deb
  configure
  build modules_prepare
  # What it calls is in the kernel that loads it.
  build KBUILD_MODPOST_WARN=1 net/netfilter/nf_tables.ko 2>/dev/null
  strip --strip-debug "$work/linux/net/netfilter/nf_tables.ko" -o "$module.new"
  mv "$module.new" "$module"
}

have_package user-mode-linux || die 'user-mode-linux is not installed'
trees=(/usr/lib/uml/modules/*)
release=${trees[-1]##*/}
NF_TABLES=${LAB_OUT%/lab}/nf-tables
module=$NF_TABLES/nf_tables-$release.ko
mkdir -p "$NF_TABLES"
if [[ ! -s $module ]]; then
  {
    install_packages "${PACKAGES[@]}"
    say "nf_tables for user-mode Linux $release"
    make_module
  } >&2
fi
[[ $(modinfo -F vermagic "$module") == "$release "* ]] || die "$module is none of $release"
printf '%s\n' "$module"
