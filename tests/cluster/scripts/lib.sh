# shellcheck shell=bash
# Shared by the other scripts: names, places and small helpers. Everything the
# cluster writes lies below KUBELAB_STATE, but for what is the kernel's anyway
# (bridge, network namespaces, cgroups) and its record in KUBELAB_RUN.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(dirname "$HERE")

say() { printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2; }
die() { say "error: $*"; exit 1; }

# A node mounts its own /tmp, /var and /run over the host's, so nothing a node
# needs may lie there. first_outside PATH...: the first that does not.
first_outside() {
  local path
  for path; do
    path=$(realpath -m "$path")
    case $path/ in /tmp/*|/var/*|/run/*) ;; *) echo "$path"; return ;; esac
  done
  return 1
}
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/rocketmq-rs
# What is built depends on these files alone; their hash is the cache's key.
sources_key() { (cd "$ROOT" && find src scripts/build -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16); }
checkout_key() { printf %s "$ROOT" | sha256sum | cut -c1-8; }

: "${KUBELAB_STATE:=$(first_outside "$ROOT/state" "$CACHE/state-$(checkout_key)" "/opt/rocketmq-rs/state-$(checkout_key)")}"
: "${KUBELAB_BIN:=$(first_outside "$CACHE" /opt/rocketmq-rs)/kubelab-bin/$(sources_key)}"
: "${KUBELAB_RUN:=/run/kubelab}"       # whose cluster runs on this machine, its pids
: "${KUBELAB_NODES:=1}"                # number of nodes, 1 to 9
: "${KUBELAB_PROXY:=iptables}"         # kube-proxy mode: iptables or nftables
: "${KUBELAB_NET:=172.30.0}"           # first three octets of the node network
: "${KUBELAB_PODS:=10.244}"            # first two octets; node N has PODS.N.0/24
: "${KUBELAB_SERVICES:=10.96}"         # first two octets of the service network
: "${KUBELAB_GONE_AFTER:=20}"          # seconds until a silent node is NotReady
: "${KUBELAB_EVICT_AFTER:=30}"         # seconds until its pods are evicted
export KUBELAB_STATE KUBELAB_BIN KUBELAB_RUN KUBELAB_NODES KUBELAB_PROXY KUBELAB_NET KUBELAB_PODS \
  KUBELAB_SERVICES KUBELAB_GONE_AFTER KUBELAB_EVICT_AFTER

BRIDGE=kubelab0
HOST_IP=$KUBELAB_NET.1
API=https://$HOST_IP:6443
DNS_IP=$KUBELAB_SERVICES.0.10
PKI=$KUBELAB_STATE/pki
CONF=$KUBELAB_STATE/conf
KUBEONE=$KUBELAB_BIN/kubeone

kube() { "$KUBEONE" kubectl --kubeconfig "$CONF/admin.kubeconfig" "$@"; }
node_name() { echo "node$1"; }
node_ip() { echo "$KUBELAB_NET.$((10 + $1))"; }
node_netns() { echo "kubelab-node$1"; }
node_dir() { echo "$KUBELAB_STATE/nodes/node$1"; }

# await SECONDS COMMAND...: run COMMAND until it succeeds.
await() {
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.3
  done
}

# install PACKAGE...: Debian packages, waiting for another apt to end.
install() {
  local apt=(apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
  if [ "$(id -u)" != 0 ]; then apt=(sudo --non-interactive env DEBIAN_FRONTEND=noninteractive "${apt[@]}"); fi
  say "installing: $*"
  "${apt[@]}" update -qq >/dev/null || die "apt-get update failed"
  DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y -qq --no-install-recommends "$@" >/dev/null || die "apt-get install $* failed"
}

# A process is remembered as "PID STARTTIME", so that a number used again by a
# stranger is never taken for ours.
born() { awk '{ sub(/^.*\) /, ""); print $20 }' "/proc/$1/stat" 2>/dev/null; }
remember() { echo "$2 $(born "$2")" >"$KUBELAB_RUN/$1.pid"; }
pid_of() { # pid_of NAME: the pid where that process still lives
  local pid start
  [ -r "$KUBELAB_RUN/$1.pid" ] || return 1
  read -r pid start <"$KUBELAB_RUN/$1.pid" || return 1
  [ -n "$start" ] && [ "$(born "$pid")" = "$start" ] && echo "$pid"
}
# init_of NAME: host pid of the first process inside NAME's pid namespace.
init_of() {
  local pid; pid=$(pid_of "$1") || return 1
  local kids; kids=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null) || return 1
  # shellcheck disable=SC2086
  set -- $kids
  [ $# -ge 1 ] && echo "$1"
}
# runs: whether any process of the recorded cluster lives.
runs() {
  local what
  for what in control node{1..9}; do if pid_of "$what" >/dev/null; then return 0; fi; done
  return 1
}

# drop_cgroup NAME: remove a cgroup and all below it from every hierarchy. The
# kernel refuses one that is in use, and a killed process leaves it a moment late.
drop_cgroup() {
  local top
  for top in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    [ -d "$top/$1" ] || continue
    await 10 sh -c 'find "$1" -depth -type d -exec rmdir {} + 2>/dev/null; test ! -d "$1"' - "$top/$1" ||
      say "left behind: $top/$1"
  done
}

# inside NODE-NUMBER COMMAND...: run COMMAND in a node's namespaces.
inside() {
  local init; init=$(init_of "node$1") || die "node$1 does not run"; shift
  nsenter --target "$init" --mount --pid --net --uts --ipc -- "$@"
}

# keep NAME LOGDIR COMMAND...: run COMMAND, again whenever it ends.
keep() {
  local name=$1 log=$2/$1.log; shift 2
  while :; do
    "$@" >>"$log" 2>&1 </dev/null || true
    echo "--- $name ended; starting it again" >>"$log"
    sleep 1
  done
}
