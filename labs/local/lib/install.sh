# shellcheck shell=bash
# Packages and compiler, on Debian 12 and later. Sourced after env.sh.

LAB_PACKAGES=(
  kmod iproute2 procps redis-server frr frr-pythontools ndisc6 isc-dhcp-client curl jq openssl nftables tcpdump
  util-linux gcc libc6-dev
)
# hyper's and ring's needs are covered by gcc; this is the oldest compiler the workspace accepts.
RUST_VERSION_MIN=1.90

have_package() { [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]; }

# install_packages PACKAGE...: the missing ones of them, with their services kept from starting.
install_packages() {
  local package missing=() policy=/usr/sbin/policy-rc.d made_policy=0
  for package in "$@"; do have_package "$package" || missing+=("$package"); done
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || die "missing packages: ${missing[*]} (run as root to install them)"
  command -v apt-get >/dev/null || die "missing packages: ${missing[*]} (no apt-get here)"
  say "installing ${missing[*]}"
  mkdir -p "$LAB_OUT"
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    made_policy=1
  fi
  if ! {
    apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  } </dev/null >"$LAB_OUT/apt.log" 2>&1; then
    ((made_policy)) && rm -f "$policy"
    tail -20 "$LAB_OUT/apt.log" >&2
    die "apt-get could not install ${missing[*]} (log: $LAB_OUT/apt.log)"
  fi
  if ((made_policy)); then rm -f "$policy"; fi
  if [[ -d /run/systemd/system ]]; then
    local service
    for service in redis-server frr; do
      [[ " ${missing[*]} " != *" $service "* ]] || systemctl disable -q --now "$service" || true
    done
  fi
}

# The packages of the lab itself; user-mode Linux only where the host's kernel has no VRF.
install_lab_packages() {
  local packages=("${LAB_PACKAGES[@]}")
  kernel_has_vrf || packages+=(user-mode-linux)
  install_packages "${packages[@]}"
}

cargo_is_new_enough() {
  local version
  version=$(cargo --version 2>/dev/null) || return 1
  version=${version#cargo }
  version=${version%% *}
  [[ $(printf '%s\n' "$RUST_VERSION_MIN" "$version" | sort -V | head -1) == "$RUST_VERSION_MIN" ]]
}

# Puts a cargo that can build the workspace on PATH: the one there is, rustup's, else Debian's.
install_cargo() {
  cargo_is_new_enough && return
  if [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
    cargo_is_new_enough && return
  fi
  # Debian 12 carries a recent compiler for the browsers it ships; it conflicts with its plain rustc.
  local compiler=(cargo rustc)
  [[ -n $(apt-cache madison cargo-web 2>/dev/null) ]] && compiler=(cargo-web rustc-web)
  install_packages "${compiler[@]}" ca-certificates
  hash -r
  cargo_is_new_enough || die "$(cargo --version) is older than $RUST_VERSION_MIN"
}

# rustfmt and clippy of that compiler.
install_lints() {
  cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
  local lints=(rustfmt rust-clippy)
  have_package cargo-web && lints=(rustfmt-web rust-web-clippy)
  install_packages "${lints[@]}"
}

# The programs of the lab into LAB_BIN: the agent as it ships, and what stands in for the rest of the world.
build_programs() { (cd "$LAB_REPO" && cargo agent && cargo build --release --locked -p stand-ins -p e2e); }

build() {
  say "building switch-agent, stand-ins and e2e (release)"
  build_programs || die "the build failed"
}
