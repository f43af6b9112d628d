# shellcheck shell=bash
# Kernel settings by kind of node, written without a process per setting. Sourced inside the namespace.

set_sysctl() { echo "$2" >"/proc/sys/net/$1"; }

# The settings of a SONiC image that the boot network depends on.
sysctl_leaf() {
  set_sysctl ipv6/conf/all/forwarding 1
  set_sysctl ipv6/conf/default/forwarding 1
  local scope
  for scope in all default Ethernet0 Ethernet4 Ethernet8 Ethernet48; do
    set_sysctl ipv6/conf/$scope/accept_dad 0
    set_sysctl ipv6/conf/$scope/keep_addr_on_down 1
    set_sysctl ipv6/conf/$scope/ignore_routes_with_linkdown 1
  done
  set_sysctl ipv4/ip_forward 1
  set_sysctl ipv4/tcp_l3mdev_accept 1
  set_sysctl ipv4/udp_l3mdev_accept 1
}

sysctl_spine() {
  set_sysctl ipv6/conf/all/forwarding 1
  local scope
  for scope in all default swp1 swp2 swp10 swp11; do set_sysctl ipv6/conf/$scope/accept_dad 0; done
}

sysctl_api() { set_sysctl ipv6/conf/eth0/accept_dad 0; }
sysctl_tenant() { sysctl_api; }

# A plain Linux host with a kernel of default settings: SLAAC and duplicate address detection.
sysctl_m() {
  set_sysctl ipv6/conf/eth0/accept_ra 1
  set_sysctl ipv6/conf/eth0/autoconf 1
}

# A wire does not speak IPv6.
sysctl_patch() {
  set_sysctl ipv6/conf/all/disable_ipv6 1
  set_sysctl ipv6/conf/default/disable_ipv6 1
}
