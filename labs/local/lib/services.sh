# shellcheck shell=bash
# Start, stop and state of the lab's processes, one function per part. Sourced after env.sh.
# Every process has LAB_RUN/NODE/PART.pid and a log in LAB_OUT/logs/NODE-PART.

# spawn NODE PART COMMAND...: in the node's namespace; the pid is the command's own.
spawn() {
  local node=$1 part=$2
  shift 2
  setsid nsenter --net="/run/netns/$node" "$@" </dev/null >>"$LAB_OUT/logs/$node-$part" 2>&1 &
  echo $! >"$LAB_RUN/$node/$part.pid"
  disown
}

pid_of() { cat "$LAB_RUN/$1/$2.pid" 2>/dev/null; }

running() {
  local pid stat
  pid=$(pid_of "$1" "$2") && [[ -n $pid ]] || return 1
  stat=$(cat "/proc/$pid/stat" 2>/dev/null) && [[ $stat != *') Z '* ]]
}

# stop NODE PART SIGNAL: waits until the process is gone.
stop() {
  running "$1" "$2" || return 0
  kill -s "$3" "$(pid_of "$1" "$2")"
  local tries=100
  while running "$1" "$2"; do
    ((tries--)) || die "$1 $2 does not stop on SIG$3"
    sleep 0.1
  done
}

start_redis() {
  local dir=$LAB_RUN/$1
  # SONiC's settings; nothing is persisted, and RDB files would only slow the lab down.
  spawn "$1" redis redis-server --port 6379 --bind 127.0.0.1 --unixsocket "$dir/redis.sock" \
    --unixsocketperm 770 --databases 100 --notify-keyspace-events AKE --save '' --appendonly no \
    --client-output-buffer-limit 'pubsub 0 0 0' --dir "$dir" --loglevel warning
}

# SONiC's list of databases, with this leaf's socket.
write_database_config() {
  jq -n --arg socket "$LAB_RUN/$1/redis.sock" '
    {INSTANCES: {redis: {hostname: "127.0.0.1", port: 6379, unix_socket_path: $socket, persistence_for_warm_boot: "yes"}},
     DATABASES: ([["APPL_DB", 0, ":"], ["ASIC_DB", 1, ":"], ["COUNTERS_DB", 2, ":"], ["LOGLEVEL_DB", 3, ":"],
                  ["CONFIG_DB", 4, "|"], ["FLEX_COUNTER_DB", 5, ":"], ["STATE_DB", 6, "|"]]
                 | map({(.[0]): {id: .[1], separator: .[2], instance: "redis"}}) | add),
     VERSION: "1.0"}' >"$LAB_RUN/$1/database_config.json"
}

redis() {
  local leaf=$1
  shift
  redis-cli -s "$LAB_RUN/$leaf/redis.sock" "$@"
}

# The tables of a config_db.json into CONFIG_DB, as sonic-cfggen writes them.
load_config() {
  local leaf=$1 file=${2:-$LAB_LOCAL/config/$1.json}
  jq -r -f "$LAB_LOCAL/lib/config-db.jq" "$file" | redis "$leaf" -n 4 >/dev/null
  redis "$leaf" -n 4 set CONFIG_DB_INITIALIZED 1 >/dev/null
}

# start_swss LEAF [--warm]
start_swss() {
  spawn "$1" swss "$LAB_BIN/stand-ins" swss --database-config "$LAB_RUN/$1/database_config.json" "${@:2}"
}

# What configures FRR out of CONFIG_DB; started by whoever needs it: the lab's FRR is configured by files.
start_frr_config() {
  spawn "$1" "$2" "$LAB_BIN/stand-ins" "$2" --database-config "$LAB_RUN/$1/database_config.json" --pathspace "$1"
}

# The switch's configuration by metal-core; LAB_RUN/NODE/metal-core.json says what it is to be.
start_metal_core() {
  local dir=$LAB_RUN/$1
  spawn "$1" metal-core "$LAB_BIN/stand-ins" metal-core --database-config "$dir/database_config.json" \
    --pathspace "$1" --desired "$dir/metal-core.json" --template "$LAB_LOCAL/config/frr/$1-metal-core.conf" \
    --frr-conf "$dir/frr.conf" --report "$dir/metal-core-report.json"
}

start_frr() {
  local node=$1 daemon daemons=(zebra staticd bgpd)
  mkdir -p "/etc/frr/$node" "/run/frr/$node"
  # FRR's pathspace (-N) keeps the sockets and files of the routers apart.
  [[ -n $LAB_FRR ]] || cp "$LAB_LOCAL/config/frr/$node"/*.conf "/etc/frr/$node/"
  : >"/etc/frr/$node/vtysh.conf"
  : >"/etc/frr/$node/staticd.conf"
  chown -R frr:frr "/etc/frr/$node" "/run/frr/$node"
  if [[ -n $LAB_FRR ]]; then
    daemons=(mgmtd "${daemons[@]}")
    frr_state "$node"
  fi
  for daemon in "${daemons[@]}"; do
    local options=(-N "$node" --log stdout --log-level warning -P 0)
    # Since FRR 10 not every daemon reads a file of its own: its configuration is loaded when all are there.
    [[ -n $LAB_FRR ]] || options+=(-f "/etc/frr/$node/$daemon.conf")
    [[ $daemon != zebra ]] || options+=(-s 1048576)
    spawn "$node" "$daemon" "${LAB_FRR:-/usr/lib/frr}/$daemon" "${options[@]}"
  done
  [[ -z $LAB_FRR ]] || load_frr "$node"
}

# Where FRR 10 keeps mgmtd's commits and what a daemon says when it crashes: both in memory.
frr_state() {
  local dir
  for dir in /var/lib/frr /var/tmp/frr; do
    mkdir -p "$dir"
    mountpoint -q "$dir" || mount -t tmpfs frr "$dir"
  done
  mkdir -p "/var/lib/frr/$1"
  chown frr:frr /var/lib/frr /var/tmp/frr "/var/lib/frr/$1"
}

load_frr() {
  local node=$1 daemon
  for daemon in mgmtd zebra staticd bgpd; do
    wait_until 30 "$daemon of $node answers" test -S "/run/frr/$node/$daemon.vty"
  done
  cat "$LAB_LOCAL/config/frr/$node"/{zebra,bgpd}.conf >"/etc/frr/$node/lab.conf"
  wait_until 60 "FRR of $node takes its configuration" vtysh -N "$node" -f "/etc/frr/$node/lab.conf"
}

stop_frr() {
  local daemon
  for daemon in bgpd staticd zebra mgmtd; do stop "$1" "$daemon" "$2"; done
}

# /sys shows the interfaces of the namespace it was mounted in: the agent needs the leaf's own.
# shellcheck disable=SC2016 # expanded by the shell inside
OWN_SYSFS=(unshare --mount sh -c 'mount -t sysfs sysfs /sys && exec "$0" "$@"')

start_agent() {
  local dir=$LAB_RUN/$1
  spawn "$1" agent "${OWN_SYSFS[@]}" \
    env RUST_BACKTRACE=1 GLIBC_TUNABLES="$LAB_AGENT_TUNABLES" "$LAB_BIN/switch-agent" run \
    --database-config "$dir/database_config.json" --state-dir "$dir/state" \
    --admin-socket "$dir/admin.sock" --admin-listen 127.0.0.1:18091 \
    --vtysh "vtysh -N $1" --log-format text --log-level "${LAB_LOG_LEVEL:-info}"
}

start_control_api() {
  spawn api control-api "$LAB_BIN/stand-ins" control-api --listen "[$API_ADDRESS]:$API_PORT" \
    --pki "$LAB_RUN/pki" --control "$LAB_RUN/api/control-api.sock" \
    --jwks "leaf1=$LAB_RUN/leaf1/admin.sock" --jwks "leaf2=$LAB_RUN/leaf2/admin.sock"
}

# metal-api v1, for the dialect metal-stack-v1. The agents are configured for it by whoever needs it.
start_metal_api() {
  printf 'lab-fleet-key\n' >"$LAB_RUN/pki/hmac"
  spawn api metal-api "$LAB_BIN/stand-ins" metal-api --grpc-listen "[$API_ADDRESS]:50051" \
    --rest-listen "[$API_ADDRESS]:8446" --control-listen "[$API_ADDRESS]:8447" \
    --pki "$LAB_RUN/pki" --hmac-file "$LAB_RUN/pki/hmac"
}

# The metal-stack API v2, beside the control API; its tokens end with it, the switches' token does not.
start_metal_apiserver() {
  spawn api metal-apiserver "$LAB_BIN/stand-ins" metal-apiserver --listen "[$API_ADDRESS]:$METAL_APISERVER_PORT" \
    --pki "$LAB_RUN/pki" --data "$LAB_LOCAL/config/metal-apiserver.json" --base /metal \
    --infra-token "$LAB_RUN/api/infra-token" --control "$LAB_RUN/api/metal-apiserver.sock" \
    --super-user-password fleet-wide
}

# Boot files over plain HTTP, beside the control API: behind the fabric and within leak_prefix.
start_image_server() {
  spawn api image-server "$LAB_BIN/stand-ins" image-server --listen "[$API_ADDRESS]:80" \
    --root "${LAB_IMAGES:?LAB_IMAGES names no directory}"
}

# The services that machines must not reach, and witnesses that they would answer others.
start_witnesses() { spawn tenant witnesses "$LAB_BIN/e2e" witnesses; }
