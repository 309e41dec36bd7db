#!/bin/bash
# pki.sh: the cluster's CAs, certificates and kubeconfigs. Made once; made anew when addresses change.
set -euo pipefail
# shellcheck source=env.sh
. "$(dirname "$0")/env.sh"

made_for="$NODE_NAME $NODE_IP $KUBE_SVC_IP"
if [ "$(cat "$PKI/made-for" 2>/dev/null)" = "$made_for" ]; then exit 0; fi
work=$PKI.new
rm -rf "$work" "$PKI"; mkdir -p "$work"; chmod 700 "$work"; cd "$work"

curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
ca() { openssl req -x509 "${curve[@]}" -keyout "$1.key" -out "$1.crt" -days 3650 -subj "/CN=$2" 2>/dev/null; }
# cert NAME CA SUBJECT USAGE [ALTERNATIVE NAMES]
cert() {
  { echo "basicConstraints=CA:FALSE"; echo "keyUsage=digitalSignature"; echo "extendedKeyUsage=$4"
    if [ -n "${5:-}" ]; then echo "subjectAltName=$5"; fi; } > "$1.ext"
  openssl req "${curve[@]}" -keyout "$1.key" -out "$1.csr" -subj "$3" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -set_serial "0x$(openssl rand -hex 8)" \
    -days 3650 -out "$1.crt" -extfile "$1.ext" 2>/dev/null
  rm "$1.csr" "$1.ext"
}
kubeconfig() {
  cat > "$1.kubeconfig" <<Y
apiVersion: v1
kind: Config
clusters: [{name: $CLUSTER_NAME, cluster: {server: "https://$NODE_IP:6443", certificate-authority-data: $(base64 -w0 ca.crt)}}]
users: [{name: $1, user: {client-certificate-data: $(base64 -w0 "$1.crt"), client-key-data: $(base64 -w0 "$1.key")}}]
contexts: [{name: $CLUSTER_NAME, context: {cluster: $CLUSTER_NAME, user: $1}}]
current-context: $CLUSTER_NAME
Y
}

ca ca kubernetes
ca front-proxy-ca front-proxy-ca
names=DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
cert apiserver ca /CN=kube-apiserver serverAuth "$names,DNS:localhost,IP:127.0.0.1,IP:$NODE_IP,IP:$KUBE_SVC_IP"
cert kubelet-server ca "/CN=$NODE_NAME" serverAuth "DNS:$NODE_NAME,IP:$NODE_IP,IP:127.0.0.1"
cert apiserver-kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
cert front-proxy-client front-proxy-ca /CN=front-proxy-client clientAuth
cert admin ca /O=system:masters/CN=kubernetes-admin clientAuth
cert kcm ca /CN=system:kube-controller-manager clientAuth
cert scheduler ca /CN=system:kube-scheduler clientAuth
cert proxy ca /CN=system:kube-proxy clientAuth
cert coredns ca /CN=system:coredns clientAuth
cert kubelet ca "/O=system:nodes/CN=system:node:$NODE_NAME" clientAuth
openssl genrsa -out sa.key 2048 2>/dev/null
openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
for user in admin kcm scheduler proxy coredns kubelet; do kubeconfig "$user"; done
echo "$made_for" > made-for
mv "$work" "$PKI"
