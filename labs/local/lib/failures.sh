# shellcheck shell=bash disable=SC2034,SC2317
# The failures of `break`: what each does to leaf1 or around it, what operators see of it, how it heals.
# Sourced after env.sh and services.sh. For a failure F with `-` as `_`:
#   F_break    makes it;
#   F_use      what machines do meanwhile, again and again (optional);
#   F_heal     undoes it, also when F_break got only half way;
#   F_well     the proof that it is over, besides a converged agent (optional);
#   SIGNS[F]   one line each: a view and an extended regular expression, both seen while it lasts. Views are
#              `metrics` (the changed series) and what `switch-agent show` can show;
#   VIEWS[F]   what is shown to people meanwhile, a line each;
#   AFTER[F]   what is shown when it is over; `metrics` and an expression: the changed series that match.

# The flood comes last: the machines that it pretends to be are remembered for a while.
FAILURES=(api-down wrong-ca redis-gone frr-restart link-flap foreign-binding spoofed-machine flood)
declare -A WHAT SIGNS VIEWS AFTER
BREAK_RUN=$LAB_RUN/break

redis_config() { redis leaf1 -n 4 "$@" >/dev/null; }

# ask MACHINE METHOD PATH [HEADER]...: status of a machine's request to its own port's router.
declare -A ROUTERS=([m1]=2001:db8:1:101::1 [m2]=2001:db8:1:202::1)
ask() {
  local machine=$1 method=$2 path=$3 header options=(-sS --max-time 4 -X "$2")
  shift 3
  for header; do options+=(-H "$header"); done
  [[ $method == GET ]] || options+=(-d '{}')
  in_node "$machine" curl "${options[@]}" -w '\n%{http_code}' "http://[${ROUTERS[$machine]}]:18090$path"
}

# A token of the machine's, kept for `call`.
take_token() {
  local answer
  answer=$(ask "$1" POST /v1/token 'Boot-Token: request') && [[ ${answer##*$'\n'} == 200 ]] || return
  jq -r .token <<<"${answer%$'\n'*}" >"$BREAK_RUN/token-$1"
}

# call MACHINE [OWNER]: one call of the control API; says the status.
call() { ask "$1" GET /api/v1/whoami "Authorization: Bearer $(<"$BREAK_RUN/token-${2:-$1}")" | tail -1; }

answered() { [[ $(call "$1") == 200 ]]; }
served() { [[ $(ask "$1" GET /healthz) == *200 ]]; }

WHAT[api-down]='the control API is killed'
SIGNS[api-down]='metrics proxy_upstream_errors_total\{reason="upstream-unavailable"\}
metrics proxy_upstream_suspended 0 -> 1
status ^Control API +not reached
timeline Ethernet0 ^api .* 50[234]$'
VIEWS[api-down]='status
timeline Ethernet0'
AFTER[api-down]='timeline Ethernet0'
api_down_break() { take_token m1 && answered m1 && "$LAB_LOCAL/service" api control-api kill; }
api_down_use() { call m1; }
api_down_heal() { running api control-api || "$LAB_LOCAL/service" api control-api start; }
api_down_well() { answered m1; }

WHAT[wrong-ca]='control_api_ca_file of leaf1 names a CA that did not sign the control API'
SIGNS[wrong-ca]='metrics proxy_upstream_errors_total\{reason="upstream-tls"\}
status ^Control API +not reached
timeline Ethernet0 ^api .* 50[234]$'
VIEWS[wrong-ca]='status
timeline Ethernet0'
AFTER[wrong-ca]='timeline Ethernet0'
wrong_ca_break() {
  take_token m1 && answered m1 &&
    "$LAB_BIN/stand-ins" control-api --make-ca "$BREAK_RUN/pki" --address "$API_ADDRESS" &&
    redis_config hset 'BOOT_NETWORK|global' control_api_ca_file "$BREAK_RUN/pki/ca.pem"
}
wrong_ca_use() { call m1; }
wrong_ca_heal() { redis_config hset 'BOOT_NETWORK|global' control_api_ca_file "$LAB_RUN/pki/ca.pem"; }
wrong_ca_well() { answered m1; }

WHAT[redis-gone]='Redis of leaf1 stops'
SIGNS[redis-gone]='metrics source_readable\{source="CONFIG_DB"\} 1 -> 0
status ^Verdict +degraded'
VIEWS[redis-gone]='status
ports'
AFTER[redis-gone]='status'
# SONiC keeps its databases in memory alone; here they are saved, so that healing is starting.
redis_gone_break() { redis leaf1 save >/dev/null && "$LAB_LOCAL/service" leaf1 redis stop; }
redis_gone_use() { served m1 && echo 'm1 is served meanwhile'; }
redis_gone_heal() {
  running leaf1 redis && return
  "$LAB_LOCAL/service" leaf1 redis start
  wait_until 15 'Redis of leaf1 answers' redis leaf1 ping
  "$LAB_LOCAL/service" leaf1 swss restart
}
redis_gone_well() { served m1; }

WHAT[frr-restart]='FRR of leaf1 stops, and is started again to heal'
SIGNS[frr-restart]='metrics source_readable\{source="FRR"\} 1 -> 0
metrics leak_state\{partition="p1",vrf="VrfBoot-p1",state="applied"\} 1 -> 0
partitions unknown'
VIEWS[frr-restart]='status
partitions'
AFTER[frr-restart]='partitions'
frr_restart_break() { "$LAB_LOCAL/service" leaf1 frr stop; }
frr_restart_use() { served m1 && echo 'm1 is served meanwhile'; }
frr_restart_heal() { running leaf1 bgpd || "$LAB_LOCAL/service" leaf1 frr start; }
frr_restart_well() { take_token m1 && answered m1; }

WHAT[link-flap]='the cable of m1 is out, and in again to heal'
SIGNS[link-flap]='metrics ra_state\{port="Ethernet0",state="down"\} - -> 1
ports ^Ethernet0 .* down '
VIEWS[link-flap]='ports'
AFTER[link-flap]='timeline Ethernet0
metrics ^boot_stage_seconds_count'
cable_of_m1() { printf 'link set %s\n' "l1e0 $1" "m1 $1" | ip -n patch -batch -; }
# m1 has a token: what comes after is another boot.
link_flap_break() { take_token m1 && cable_of_m1 down && sleep 2; }
link_flap_heal() { cable_of_m1 up; }
link_flap_well() { take_token m1 && answered m1; }

WHAT[flood]='m2 floods the switch with Router Solicitations from 4095 addresses'
SIGNS[flood]='metrics ndp_dropped_total\{port="Ethernet4",reason="over_budget"\}
metrics ndp_mutes_total\{port="Ethernet4"\}'
VIEWS[flood]='status
ra Ethernet4'
AFTER[flood]='ra Ethernet4'
flood_break() { spawn m2 flood "$LAB_BIN/e2e" flood m2 --seconds 30; }
flood_use() { served m1 && echo 'm1, on another port, is served meanwhile'; }
flood_heal() { stop m2 flood TERM; }
flood_well() { served m2; }

WHAT[foreign-binding]='somebody binds Ethernet4 of leaf1 to a tenant VRF'
SIGNS[foreign-binding]='metrics boot_port\{port="Ethernet4",.*phase="foreign"\} - -> 1
ports ^Ethernet4 .* foreign '
VIEWS[foreign-binding]='status
ports'
AFTER[foreign-binding]='ports'
# As SONiC's `config interface vrf bind` does it; the agent may be quicker, and takes the port back in between.
foreign_binding_break() {
  local address='INTERFACE|Ethernet4|2001:db8:1:202::1/64' base='INTERFACE|Ethernet4' deadline=$((SECONDS + 50))
  redis_config hset 'VRF|VrfTenant' NULL NULL
  while ((SECONDS < deadline)); do
    redis_config del "$address" "$base"
    sleep 0.1
    redis_config hset "$base" vrf_name VrfTenant
    while foreign_binding_is_there && ((SECONDS < deadline)); do
      # It sends its last advertisements first.
      show ports | grep -q '^Ethernet4 .* foreign ' && return
      sleep 0.5
    done
  done
  return 1
}
foreign_binding_is_there() { [[ $(redis leaf1 -n 4 hget 'INTERFACE|Ethernet4' vrf_name) == VrfTenant ]]; }
foreign_binding_heal() {
  if foreign_binding_is_there; then redis_config del 'INTERFACE|Ethernet4'; fi
}
foreign_binding_well() { served m2 && redis_config del 'VRF|VrfTenant'; }

WHAT[spoofed-machine]='m2 takes the MAC address of m1, and uses its token'
SIGNS[spoofed-machine]='metrics machine_moves_total
metrics proxy_tokens_refused_total\{reason="token-.*"\}
macs ^52:54:00:00:00:01 +Ethernet4 '
VIEWS[spoofed-machine]='macs'
AFTER[spoofed-machine]='macs'
spoofed_machine_break() {
  take_token m1 && answered m1 && ip -n m2 link set eth0 address 52:54:00:00:00:01
}
spoofed_machine_use() { call m2 m1; }
spoofed_machine_heal() { ip -n m2 link set eth0 address 52:54:00:00:00:02; }
spoofed_machine_well() { served m2 && take_token m1 && answered m1; }
