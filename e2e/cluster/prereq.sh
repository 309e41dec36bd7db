# shellcheck shell=bash
# Prerequisites: Debian packages (installed when we are root), Rust and Go (checked). Sourced.

PACKAGES_CLUSTER="containerd runc containernetworking-plugins iptables nftables conntrack ethtool socat
  busybox-static curl openssl iproute2 util-linux kmod procps python3"
PACKAGES_BUILD="gcc libc6-dev cmake"
PACKAGES_TEST="e2fsprogs mount postgresql-15 mariadb-server-core mariadb-client-core python3-venv"

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1)" = "$2" ]; }

need_debian() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "missing: ${missing[*]}. This machine has no apt-get; install them its own way."
  [ "$(id -u)" = 0 ] || die "missing packages; install them with: sudo apt-get install -y ${missing[*]}"
  say "installing Debian packages: ${missing[*]}"
  # Only the programs are wanted: Debian's package must not start a database server of its own.
  if [[ " ${missing[*]} " == *" postgresql-"* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
  fi
  apt-get update -qq || say "apt-get update failed; going on with the package lists at hand"
  DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${missing[@]}" > "$COFFER_CACHE/apt.log" 2>&1 ||
    die "apt-get could not install ${missing[*]}; see $COFFER_CACHE/apt.log"
}

need_go() {
  local have
  command -v go >/dev/null || die "Go >= 1.26 is needed to build Kubernetes from its modules: https://go.dev/dl"
  have=$(go env GOVERSION); have=${have#go}
  version_at_least "$have" 1.26 || die "Go >= 1.26 is needed, this is $have: https://go.dev/dl"
}

need_rust() {
  local have
  command -v cargo >/dev/null || die "Rust >= 1.95 is needed; get it with: curl -sSf https://sh.rustup.rs | sh"
  have=$(rustc --version | awk '{ print $2 }')
  version_at_least "$have" 1.95 || die "Rust >= 1.95 is needed, this is $have; get it with: rustup update stable"
}

# Any new hole in a machine is named here, not met an hour later.
need_root() { [ "$(id -u)" = 0 ] || die "the local cluster makes namespaces, mounts and a network device: run it as root"; }

prerequisites() {
  mkdir -p "$COFFER_CACHE"
  # The lists are words on purpose.
  # shellcheck disable=SC2086
  need_debian $PACKAGES_CLUSTER $PACKAGES_BUILD $PACKAGES_TEST
  need_go
  need_rust
}
