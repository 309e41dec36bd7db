# shellcheck shell=bash disable=SC2034
# Settings and small helpers of the local cluster. Sourced by the other scripts, never run.
# Everything has a default; the environment wins.

CLUSTER_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$CLUSTER_DIR/../.." && pwd)
COFFER_CACHE=${COFFER_CACHE:-$HOME/.cache/coffer}
K8S_VERSION=v1.37.2
BIN=$COFFER_CACHE/bin/$K8S_VERSION          # kubernetes, coredns, helm, pause
BASE_IMAGES=$COFFER_CACHE/images/base       # what every cluster gets: pause, busybox

# What kind-config.yaml says: its top-level name, the two subnets, one node.
KIND_CONFIG=${KIND_CONFIG:-$REPO/kind-config.yaml}
kind_value() { awk -v key="$1:" '$1 == key { print $2; exit }' "$KIND_CONFIG"; }
CLUSTER_NAME=$(kind_value name)
POD_CIDR=$(kind_value podSubnet)
SVC_CIDR=$(kind_value serviceSubnet)
NODE_NAME=$CLUSTER_NAME-control-plane

# A /30 between the machine and the node. Host programs reach pods and services through it,
# and pods reach host programs at HOST_IP, which the cluster's DNS also calls host.coffer.
LINK_NET=${LINK_NET:-198.18.0}
HOST_IP=$LINK_NET.1
NODE_IP=$LINK_NET.2
HOST_IF=$(printf 'cl-%.12s' "$CLUSTER_NAME")
KUBE_SVC_IP=${SVC_CIDR%.*}.1
ISSUER=https://kubernetes.default.svc.cluster.local
CGROUP=/coffer-cluster-$CLUSTER_NAME        # every pod's cgroup is below it

STATE=$COFFER_CACHE/cluster/$CLUSTER_NAME
PKI=$STATE/pki                              # kept between runs
LOG=$STATE/log                              # of the last run
RUN=$STATE/run                              # removed by `down`
KUBECONFIG_FILE=$STATE/kubeconfig
export KUBECACHEDIR=$COFFER_CACHE/kube

say() { printf '%s\n' "$*"; }
die() { printf 'cluster: %s\n' "$*" >&2; exit 1; }

# Pids of this cluster's own processes outside the namespaces' view: `unshare` and the init script
# with its subshells. They carry the state directory as an argument of its own, so a match is exact.
cluster_pids() {
  # shellcheck disable=SC2062 # the directories are for the shell, the pattern is quoted
  grep -lszxF -e"--cluster-state=$STATE" /proc/[0-9]*/cmdline | cut -d/ -f3 || true
}

# The init script's pid as the machine sees it: the one that is pid 1 in its own namespace.
init_pid() {
  local pid
  for pid in $(cluster_pids); do
    [ "$(awk '/^NSpid:/ && NF > 2 { print $NF }' "/proc/$pid/status" 2>/dev/null)" = 1 ] && { echo "$pid"; return; }
  done
  return 1
}

kubectl_() { KUBECONFIG=$KUBECONFIG_FILE "$BIN/kubectl" "$@"; }

# The directories in which Linux keeps this cluster's pods: one per v1 hierarchy, or one in v2.
cgroup_dirs() {
  local dir
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo "/sys/fs/cgroup$CGROUP"
  else
    for dir in /sys/fs/cgroup/*/; do echo "${dir%/}$CGROUP"; done
  fi
}
