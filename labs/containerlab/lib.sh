# shellcheck shell=bash
# shellcheck disable=SC2034 # used by those who source this
# What the scripts of this lab agree on. Sourced, never run.

. "$(dirname "${BASH_SOURCE[0]}")/../local/lib/env.sh"

CLAB=$LAB_REPO/labs/containerlab
CLAB_OUT=$LAB_OUT/containerlab
CLAB_TOPOLOGY=$CLAB/linux.clab.yml
CLAB_IMAGE=switch-agent-lab:latest
CLAB_IMAGE_TAR=$CLAB_OUT/image.tar
CLAB_NODES=(leaf1 leaf2 spine api tenant m1 m2 m3 m4)
# The version that is built where none is installed; the Go module proxy has it.
CLAB_VERSION=v0.60.0
CLAB_BINARY=$CLAB_OUT/containerlab-$CLAB_VERSION
# In the image: what leaves, spine and machines run, and what a person needs who looks.
CLAB_IMAGE_PACKAGES=iproute2,iputils-ping,frr,redis-server,redis-tools,jq,nftables,procps,curl

# Debian's client, whatever else is called docker here.
docker() { /usr/bin/docker "$@"; }

# containerlab ARGUMENT...: the one that is installed, else the one that labs/containerlab/build has made.
containerlab() {
  local program=$CLAB_BINARY
  [[ -x $program ]] || program=$(type -P containerlab) || die "no containerlab: run labs/containerlab/build first"
  "$program" "$@"
}

# What this host lacks to run the lab where it is, in words; nothing when all is there.
clab_missing() {
  [[ -x /usr/bin/docker ]] || { echo 'no docker (Debian: docker.io)' && return; }
  [[ -x $CLAB_BINARY ]] || type -P containerlab >/dev/null || { echo 'no containerlab' && return; }
  [[ -s $CLAB_IMAGE_TAR ]] || { echo 'no image' && return; }
}
