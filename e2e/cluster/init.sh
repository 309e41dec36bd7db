#!/bin/bash
# init.sh: process 1 of the cluster's own mount, network, pid and ipc namespaces; `cluster up`
# starts it. When it ends, the kernel ends every process of the cluster, containers included, and
# all mounts, bridges, veths and firewall rules go with the namespaces.
set -uo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
trap 'exit 0' TERM INT

T=/run/cluster        # pids, generated configuration
START=$(date +%s%N)
stage() { printf '%6d ms  %s\n' $((($(date +%s%N) - START) / 1000000)) "$*" >> "$LOG/stages"; }
start() {
  local name=$1; shift
  "$@" > "$LOG/$name.log" 2>&1 &
  echo $! > "$T/$name.pid"
}
wait_for() { # wait_for SECONDS WHAT COMMAND...
  local end=$(($(date +%s) + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$(date +%s)" -lt "$end" ] || { echo "gave up waiting for $what" >&2; exit 1; }
    sleep 0.05
  done
}

# A directory that this run makes on the machine's own disk is noted, for `down` to remove.
own_dir() {
  [ -d "$1" ] && return
  echo "$1" >> "$RUN/made-dirs"
  mkdir -p "$1"
}

mounts() {
  local dir
  # The cgroup mounts are put aside while /sys becomes that of the new network namespace; this
  # must come before the tree is made shared, or unmounting the copy would unmount the original.
  mount --rbind /sys/fs/cgroup /mnt
  mount -t sysfs sysfs /sys
  mount --rbind /mnt /sys/fs/cgroup
  umount -R -l /mnt
  mount --make-rshared /
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p "$T" /run/lock /run/cni/net.d
  for dir in containerd kubelet cni; do
    own_dir "/var/lib/$dir"; mkdir -p "$RUN/$dir"
    mount --bind "$RUN/$dir" "/var/lib/$dir"
    mount --make-rshared "/var/lib/$dir"
  done
  own_dir /var/log/pods; own_dir /var/log/containers; mkdir -p "$RUN/podlogs" "$RUN/etcd"
  mount --bind "$RUN/podlogs" /var/log/pods
  mount -t tmpfs tmpfs /var/log/containers
}

# kubelet writes these when they differ. They belong to the whole machine, so it gets to see files
# with the values it wants instead.
sysctl_shown_as() {
  local file=$T/sysctl-${1//\//-}
  echo "$2" > "$file"
  mount --bind "$file" "/proc/sys/$1"
}
sysctls() {
  sysctl_shown_as vm/overcommit_memory 1
  sysctl_shown_as vm/panic_on_oom 0
  sysctl_shown_as kernel/panic 10
  sysctl_shown_as kernel/panic_on_oops 1
  sysctl_shown_as kernel/keys/root_maxkeys 1000000
  sysctl_shown_as kernel/keys/root_maxbytes 25000000
}

cgroups() {
  local dir parent
  for dir in $(cgroup_dirs); do
    parent=${dir%"$CGROUP"}
    [ -e "$parent/cgroup.subtree_control" ] && echo "+cpuset +cpu +memory +pids" > "$parent/cgroup.subtree_control" 2>/dev/null
    mkdir -p "$dir"
    if [ -e "$parent/cpuset.cpus" ]; then       # v1: a cpuset must be filled before it takes a process
      cat "$parent/cpuset.cpus" > "$dir/cpuset.cpus"
      cat "$parent/cpuset.mems" > "$dir/cpuset.mems"
    fi
  done
}

network() {
  ip link set lo up
  wait_for 20 "the link to the machine" ip link show eth0
  ip addr add "$NODE_IP/30" dev eth0
  ip link set eth0 up
  ip route add "$SVC_CIDR" dev eth0               # the node's own processes need some route before kube-proxy rewrites
  ip route add unreachable default metric 4000    # no way out of the machine; fail at once
  sysctl -qw net.ipv4.ip_forward=1
  sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null
}

control_plane() {
  start etcd "$BIN/etcd" --name=local --data-dir="$RUN/etcd" --unsafe-no-fsync --log-level=warn \
    --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
    --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
    --initial-cluster=local=http://127.0.0.1:2380
  start kube-apiserver "$BIN/kube-apiserver" --advertise-address="$NODE_IP" --secure-port=6443 \
    --etcd-servers=http://127.0.0.1:2379 --service-cluster-ip-range="$SVC_CIDR" --allow-privileged=true \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
    --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
    --kubelet-client-certificate="$PKI/apiserver-kubelet-client.crt" \
    --kubelet-client-key="$PKI/apiserver-kubelet-client.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer="$ISSUER" --service-account-key-file="$PKI/sa.pub" \
    --service-account-signing-key-file="$PKI/sa.key" \
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt" --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file="$PKI/front-proxy-client.crt" --proxy-client-key-file="$PKI/front-proxy-client.key"
}

controllers() {
  start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$PKI/kcm.kubeconfig" \
    --authentication-kubeconfig="$PKI/kcm.kubeconfig" --authorization-kubeconfig="$PKI/kcm.kubeconfig" \
    --root-ca-file="$PKI/ca.crt" --service-account-private-key-file="$PKI/sa.key" \
    --cluster-signing-cert-file="$PKI/ca.crt" --cluster-signing-key-file="$PKI/ca.key" \
    --use-service-account-credentials=true --kube-api-qps=300 --kube-api-burst=600 \
    --leader-elect=false --bind-address=127.0.0.1 --client-ca-file="$PKI/ca.crt" \
    --requestheader-client-ca-file="$PKI/front-proxy-ca.crt"
  start kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$PKI/scheduler.kubeconfig" \
    --authentication-kubeconfig="$PKI/scheduler.kubeconfig" --authorization-kubeconfig="$PKI/scheduler.kubeconfig" \
    --leader-elect=false --bind-address=127.0.0.1
}

runtime() {
  # restrict_oom_score_adj: root without CAP_SYS_RESOURCE cannot lower it, and runc dies of trying.
  cat > "$T/containerd.toml" <<T
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt", "io.containerd.tracing.processor.v1.otlp"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/cluster/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/run/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
T
  cat > /run/cni/net.d/10-pods.conflist <<C
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
C
  start containerd containerd --config "$T/containerd.toml" --log-level warn
  wait_for 30 containerd ctr version
  stage "containerd answers"
  local image
  for image in "$BASE_IMAGES"/*.tar; do
    ctr -n k8s.io images import "$image" >> "$LOG/images.log" 2>&1 || { echo "cannot import $image" >&2; exit 1; }
  done
  stage "base images imported"
}

node() {
  cat > "$T/kubelet.yaml" <<Y
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/kubelet-server.crt
tlsPrivateKeyFile: $PKI/kubelet-server.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
volumePluginDir: /var/lib/kubelet/volume-plugins
cgroupDriver: cgroupfs
cgroupRoot: $CGROUP
failSwapOn: false
failCgroupV1: false
clusterDomain: cluster.local
clusterDNS: ["$NODE_IP"]
resolvConf: ""
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
shutdownGracePeriod: 0s
Y
  start kubelet "$BIN/kubelet" --config="$T/kubelet.yaml" --kubeconfig="$PKI/kubelet.kubeconfig" \
    --hostname-override="$NODE_NAME" --node-ip="$NODE_IP" --v=1
  cat > "$T/proxy.yaml" <<Y
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/proxy.kubeconfig}
hostnameOverride: $NODE_NAME
mode: nftables
clusterCIDR: $POD_CIDR
metricsBindAddress: 127.0.0.1:10249
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
Y
  start kube-proxy "$BIN/kube-proxy" --config="$T/proxy.yaml"
  cat > "$T/Corefile" <<C
cluster.local:53 in-addr.arpa:53 {
  bind $NODE_IP
  errors
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $PKI/coredns.kubeconfig $CLUSTER_NAME
    pods insecure
  }
}
coffer:53 {
  bind $NODE_IP
  errors
  hosts {
    $HOST_IP host.coffer
  }
}
C
  start coredns "$BIN/coredns" -conf "$T/Corefile"
}

api_ready() {
  [ "$(curl -s --max-time 2 --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" \
    https://127.0.0.1:6443/readyz)" = ok ]
}

{ cat /proc/sys/kernel/random/boot_id; readlink /proc/self/ns/pid /proc/self/ns/mnt; } > "$RUN/namespaces.new"
mv "$RUN/namespaces.new" "$RUN/namespaces"
mounts; sysctls; cgroups; network
stage "namespaces ready"
control_plane
runtime                                   # while the API server starts
wait_for 60 "the API server" api_ready
stage "API server ready"
controllers; node
stage "all started"
touch "$RUN/started"
while :; do sleep 3600 & wait $!; done    # reaps, and ends on TERM
