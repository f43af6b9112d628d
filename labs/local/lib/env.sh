# shellcheck shell=bash
# What every script of the lab agrees on: places, addresses, messages. Sourced, never run.

LAB_REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
LAB_LOCAL=$LAB_REPO/labs/local
# On the host's file system, readable after the lab kernel has halted.
LAB_OUT=${LAB_OUT:-$LAB_REPO/target/lab}
# On a tmpfs of the lab: sockets and databases (hostfs has neither sockets nor shared mappings).
LAB_RUN=/run/lab
LAB_BIN=${LAB_BIN:-${CARGO_TARGET_DIR:-$LAB_REPO/target}/release}

# Programs of another FRR than the installed one (lib/frr10.sh), before those on PATH.
LAB_FRR=${LAB_FRR:-}
[[ -z $LAB_FRR ]] || PATH=$LAB_FRR:$PATH

# The agent runs with the allocator's settings of its image.
LAB_AGENT_TUNABLES=$(sed -n 's/^ENV GLIBC_TUNABLES=//p' "$LAB_REPO/sonic-package/Dockerfile")

LEAVES=(leaf1 leaf2)
MACHINES=(m1 m2 m3 m4)
# shellcheck disable=SC2034 # used by those who source this
NODES=("${LEAVES[@]}" spine api tenant patch "${MACHINES[@]}")

API_ADDRESS=2001:db8:a91::10
API_PORT=8443
METAL_APISERVER_PORT=8444
TENANT_ADDRESS=2001:db8:7e7::10

export LAB_FRR LAB_REPO LAB_LOCAL LAB_OUT LAB_RUN LAB_BIN LAB_AGENT_TUNABLES API_ADDRESS API_PORT METAL_APISERVER_PORT TENANT_ADDRESS

# Seconds since the lab (or this script) began, for progress lines.
: "${LAB_T0:=$EPOCHREALTIME}"
export LAB_T0

elapsed() {
  local now=${EPOCHREALTIME/[.,]/} t0=${LAB_T0/[.,]/}
  local ms=$(((now - t0) / 1000))
  printf '%3d.%d' $((ms / 1000)) $((ms % 1000 / 100))
}

say() { printf '[%s s] %s\n' "$(elapsed)" "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# in_node NODE COMMAND...: runs in the node's network namespace, without a fork of its own.
in_node() {
  local node=$1
  shift
  nsenter --net="/run/netns/$node" "$@"
}

# wait_until SECONDS WHAT COMMAND...: polls; the failure names WHAT.
wait_until() {
  local limit=$1 what=$2 deadline=$((SECONDS + $1))
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "not within $limit s: $what"
    sleep 0.2
  done
}
