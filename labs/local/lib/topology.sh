# shellcheck shell=bash
# Namespaces, cables and kernel settings of the lab. Sourced after env.sh, runs inside the lab kernel.
#
#     m1 m2            m3 m4         machines: one NIC (eth0), SLAAC, nothing else
#      |  |             |  |
#   ===[ patch panel ]=======        a bridge per cable, so that cables can be moved and pulled
#      |  |  |          |  |  |
#     0  4  8           0  4  8      front-panel ports EthernetN; Ethernet8 is spare
#      leaf1            leaf2
#     Ethernet48       Ethernet48
#         \             /
#          swp1 spine swp2           unnumbered eBGP
#              /   \
#            api   tenant            control API; a service that machines must never reach
#
# A fork and exec costs 0.1 s in user-mode Linux: ip(8) runs in batches, one per namespace.

# machine -> leaf and port its cable is in
declare -A CABLES=([m1]=leaf1:Ethernet0 [m2]=leaf1:Ethernet4 [m3]=leaf2:Ethernet0 [m4]=leaf2:Ethernet4)
FRONT_PORTS=(Ethernet0 Ethernet4 Ethernet8)

leaf_mac() { echo "52:54:00:0f:00:0${1#leaf}"; }
machine_mac() { echo "52:54:00:00:00:0${1#m}"; }
# The far end of a front-panel port in the patch panel: leaf1 and Ethernet0 -> l1e0.
panel_port() { echo "l${1#leaf}e${2#Ethernet}"; }

topology_up() {
  mkdir -p /run/netns
  topology_links | ip -batch - || die "cannot create the links of the lab"
  local node pids=() pid
  for node in "${NODES[@]}"; do
    configure_node "$node" &
    pids+=($!)
  done
  for pid in "${pids[@]}"; do wait "$pid" || die "the topology is incomplete"; done
}

topology_links() {
  local node leaf port machine
  for node in "${NODES[@]}"; do echo "netns add $node"; done
  for leaf in "${LEAVES[@]}"; do
    for port in "${FRONT_PORTS[@]}"; do
      echo "link add $port netns $leaf address $(leaf_mac "$leaf") mtu 9100 type veth" \
        "peer name $(panel_port "$leaf" "$port") netns patch mtu 9100"
    done
    echo "link add Ethernet48 netns $leaf address $(leaf_mac "$leaf") mtu 9100 type veth" \
      "peer name swp${leaf#leaf} netns spine mtu 9100"
  done
  for machine in "${MACHINES[@]}"; do
    echo "link add eth0 netns $machine address $(machine_mac "$machine") type veth" \
      "peer name $machine netns patch mtu 9100"
  done
  echo "link add eth0 netns api type veth peer name swp10 netns spine"
  echo "link add eth0 netns tenant type veth peer name swp11 netns spine"
}

# One process per namespace: a shell that writes /proc/sys by itself, and one ip(8).
configure_node() {
  local node=$1
  case $node in
  leaf*) leaf_batch "$node" ;;
  spine) spine_batch ;;
  api) host_batch "$API_ADDRESS/64" 2001:db8:a91::1 ;;
  tenant) host_batch "$TENANT_ADDRESS/64" 2001:db8:7e7::1 ;;
  patch) patch_batch ;;
  m*) printf 'link set lo up\nlink set eth0 up\n' ;;
  esac >"$LAB_RUN/$node.ip"
  # shellcheck disable=SC2016 # expanded by the shell inside
  in_node "$node" bash -c '
    . "$LAB_LOCAL/lib/sysctl.sh"
    sysctl_"$1" 2>&1
    if [[ $1 == leaf ]]; then grep "^rule" "$2" | ip -6 -batch -; fi
    exec ip -batch "$2"' configure_node "${node%%[0-9]*}" "$LAB_RUN/$node.ip" ||
    die "cannot configure $node"
}

leaf_batch() {
  local leaf=$1 port
  echo "link set lo up"
  echo "address add 2001:db8:f::1${leaf#leaf}/128 dev lo"
  # vrfmgrd's rule order for both families: VRF tables first, then the local table.
  echo "rule add pref 1001 table local"
  echo "rule del pref 0"
  for port in "${FRONT_PORTS[@]}" Ethernet48; do echo "link set $port up"; done
}

spine_batch() {
  echo "link set lo up"
  echo "address add 2001:db8:f::1/128 dev lo"
  echo "address add 2001:db8:a91::1/64 dev swp10"
  echo "address add 2001:db8:7e7::1/64 dev swp11"
  local port
  for port in swp1 swp2 swp10 swp11; do echo "link set $port up"; done
}

host_batch() {
  echo "link set lo up"
  echo "address add $1 dev eth0"
  echo "link set eth0 up"
  echo "route add default via $2"
}

# A bridge per machine NIC, with the front-panel port its cable is in. Spare ports have no carrier.
patch_batch() {
  local machine port
  for machine in "${MACHINES[@]}"; do
    port=$(panel_port "${CABLES[$machine]%:*}" "${CABLES[$machine]#*:}")
    # LLDP (01:80:c2:00:00:0e) passes: this is a piece of wire, not a switch.
    echo "link add cable-$machine mtu 9100 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 group_fwd_mask 0x4000"
    echo "link set $machine master cable-$machine up"
    echo "link set $port master cable-$machine up"
    echo "link set cable-$machine up"
  done
}

# attach_device DEVICE LEAF:PORT: puts the cable that DEVICE, an interface of this namespace, leads to into
# a spare port. The port has no carrier until its end in the patch panel is set up.
attach_device() {
  local device=$1 port
  port=$(panel_port "${2%:*}" "${2#*:}")
  ip link set "$device" netns patch || die "cannot move $device to the patch panel"
  ip -n patch -batch - <<BATCH || die "cannot attach $device to $2"
link add cable-$device mtu 9100 type bridge stp_state 0 forward_delay 0 mcast_snooping 0 group_fwd_mask 0x4000
link set $device master cable-$device up
link set $port master cable-$device
link set cable-$device up
BATCH
}
