#!/bin/bash
# build.sh: what the cluster is made of, from package registries only, into $COFFER_CACHE.
# Does nothing when nothing changed. Cold, on two free cores: Kubernetes 6-7 min, CoreDNS and helm 2 min each.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"
# shellcheck source=prereq.sh
. "$CLUSTER_DIR/prereq.sh"

mkdir -p "$BIN" "$BASE_IMAGES"
exec 7> "$COFFER_CACHE/build.lock"
flock 7
ticker=''
trap '[ -z "$ticker" ] || kill "$ticker"' EXIT
prerequisites

# go_build NAME DIRECTORY PACKAGE LDFLAGS: rebuilds when the module, its sums, its code or Go itself changed.
go_build() {
  local out=$BIN/$1 dir=$CLUSTER_DIR/go/$2 stamp start=$SECONDS
  stamp=$( (cd "$dir" && cat ./* && go env GOVERSION && echo "$4") | sha256sum | cut -d' ' -f1)
  if [ -x "$out" ] && [ "$(cat "$out.stamp" 2>/dev/null)" = "$stamp" ]; then return; fi
  say "building $1 (minutes the first time)"
  (while sleep 30; do say "  still building $1, $((SECONDS - start)) s"; done) &
  ticker=$!
  (cd "$dir" && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $4" -o "$out.new" "$3")
  kill "$ticker" && ticker=''
  mv "$out.new" "$out"
  echo "$stamp" > "$out.stamp"
  say "built $1 in $((SECONDS - start)) s"
}

version=""
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
  version+=" -X $package.gitVersion=$K8S_VERSION -X $package.gitMajor=1 -X $package.gitMinor=37"
  version+=" -X $package.gitTreeState=clean -X $package.gitCommit=goproxy-module -X $package.buildDate=1970-01-01T00:00:00Z"
done
go_build k8s-all k8s . "$version"
for name in kubectl etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy; do
  ln -sf k8s-all "$BIN/$name"
done
go_build coredns coredns . ""
go_build helm helm helm.sh/helm/v4/cmd/helm "-X helm.sh/helm/v4/internal/version.version=v4.3.1"

mkimage=$REPO/e2e/images/mkimage.py
if [ ! -e "$BASE_IMAGES/pause.tar" ] || [ "$REPO/e2e/images/pause.c" -nt "$BASE_IMAGES/pause.tar" ] || [ "$mkimage" -nt "$BASE_IMAGES/pause.tar" ]; then
  gcc -static -Os -s -o "$BIN/pause" "$REPO/e2e/images/pause.c"
  "$mkimage" "$BASE_IMAGES/pause.tar" localhost/cluster/pause:1 "$BIN/pause=/pause" --entrypoint '["/pause"]'
fi
if [ ! -e "$BASE_IMAGES/busybox.tar" ] || [ "$mkimage" -nt "$BASE_IMAGES/busybox.tar" ]; then
  applets=()
  for name in $(busybox --list); do [ "$name" = busybox ] || applets+=("/bin/$name->busybox"); done
  "$mkimage" "$BASE_IMAGES/busybox.tar" localhost/cluster/busybox:1 --dir /tmp --dir /proc --dir /sys \
    /bin/busybox=/bin/busybox "${applets[@]}" --cmd '["sh"]'
fi
