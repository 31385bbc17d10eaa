#!/usr/bin/env bash
# Run a command beside a real Kubernetes with two nodes on this machine: tools/kubernetes/cluster.sh COMMAND …
#
# One at a time: nodes keep their images in the cache folder. The command finds KUBECONFIG, CLUSTER_FOLDER (with log/ in it) and NODE_ADDRESS in its environment. Control plane,
# nodes, pods and the command live in namespaces of their own (network, mounts, processes): nothing is left when the
# command ends, and nothing of the machine's network is touched. Needs root, and tools/kubernetes/install.sh cluster.
#
#   IMAGES         folder with *.tar images for the first node; those named in SPOT_IMAGES also for the second
#   SPOT_IMAGES    names of files in IMAGES (default: all)
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
CACHE=${SKYSCRAPER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/skyscraper}/kubernetes

if [ "${INSIDE:-}" != 1 ]; then
  [ "$(id -u)" = 0 ] || { echo "error: nodes need root" >&2; exit 1; }
  mkdir -p "$CACHE"
  exec 9>"$CACHE/.cluster-lock"
  flock --nonblock 9 || { echo "error: another cluster runs on this machine; wait until it has ended" >&2; exit 1; }
  # Both nodes' images are 14 GB; after the first run only those that changed come anew.
  need=$([ -d "$CACHE/containerd" ] && echo 5 || echo 20)
  free=$(df --output=avail -B1G "$CACHE" | tail -1)
  [ "$free" -ge "$need" ] || { echo "error: $free GB are free at $CACHE; a cluster needs $need" >&2; exit 1; }
  folder=$(mktemp -d "${TMPDIR:-/tmp}/skyscraper-cluster.XXXXXX")
  status=0
  INSIDE=1 CLUSTER_FOLDER=$folder unshare --net --mount --pid --ipc --uts --fork --kill-child --mount-proc \
    bash "$0" "$@" || status=$?
  # What pods wrote is of no use without them; logs are kept where something failed.
  for hierarchy in /sys/fs/cgroup/*/; do
    [ -d "$hierarchy/skyscraper-test" ] && find "$hierarchy/skyscraper-test" -depth -type d -exec rmdir {} \; 2>/dev/null
  done
  if [ $status = 0 ] && [ -z "${KEEP_CLUSTER_FOLDER:-}" ]; then rm -rf "$folder"; else echo "logs: $folder/log" >&2; fi
  exit $status
fi

C=$CLUSTER_FOLDER
export PATH=$CACHE/bin:$PATH:/usr/sbin:/sbin
IMAGES=${IMAGES:-$CACHE/images/tar}
# A private range inside a private network namespace; it is reachable from nowhere else.
ADDRESS=10.250.0.1
SPOT_ADDRESS=10.250.0.2
mkdir -p "$C"/{pki,log,etcd,volumes}
hostname pool-node
mount --make-rshared /
ip link set lo up
# No dummy links in every kernel: one end of a veth pair is the nodes' interface.
ip link add node0 type veth peer name node0p
ip addr add $ADDRESS/24 dev node0
ip addr add $SPOT_ADDRESS/24 dev node0
ip link set node0 up
ip link set node0p up
# ClusterIPs need a route before they are translated.
ip route add default via 10.250.0.254 dev node0
sysctl -qw net.ipv4.ip_forward=1
sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true

say() { echo "$(date +%T) $*" >>"$C/log/timeline"; }

wait_for() { # SECONDS WHAT COMMAND…
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $deadline ] || { echo "error: no $what in time" >&2; exit 1; }
    sleep 0.2
  done
  say "$what"
}

certificates() {
  cd "$C/pki"
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.crt 2>/dev/null
  certificate apiserver /CN=kube-apiserver \
    "IP:127.0.0.1,IP:$ADDRESS,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  certificate admin /O=system:masters/CN=admin
  certificate controllers /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate proxy /CN=system:kube-proxy
  certificate aggregator /CN=aggregator
  certificate pool-node /O=system:nodes/CN=system:node:pool-node "DNS:pool-node,IP:$ADDRESS"
  certificate spot-node /O=system:nodes/CN=system:node:spot-node "DNS:spot-node,IP:$SPOT_ADDRESS"
  for user in admin controllers scheduler proxy pool-node spot-node; do kubeconfig $user; done
}

certificate() { # NAME SUBJECT [ALTERNATIVE NAMES]
  openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out "$1.crt" -extfile \
    <(printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth' "${3:-DNS:$1}") 2>/dev/null
}

kubeconfig() {
  local file=$C/$1.conf
  kubectl --kubeconfig="$file" config set-cluster c --server=https://$ADDRESS:6443 --embed-certs \
    --certificate-authority="$C/pki/ca.crt"
  kubectl --kubeconfig="$file" config set-credentials u --embed-certs \
    --client-certificate="$C/pki/$1.crt" --client-key="$C/pki/$1.key"
  kubectl --kubeconfig="$file" config set-context c --cluster=c --user=u
  kubectl --kubeconfig="$file" config use-context c
}

# How the API server is known to servers that extend it: KEDA's metrics are one.
AGGREGATION=(--enable-aggregator-routing=true --proxy-client-cert-file=pki/aggregator.crt
  --proxy-client-key-file=pki/aggregator.key --requestheader-client-ca-file=pki/ca.crt
  --requestheader-allowed-names=aggregator --requestheader-extra-headers-prefix=X-Remote-Extra-
  --requestheader-group-headers=X-Remote-Group --requestheader-username-headers=X-Remote-User)

control_plane() {
  cd "$C"
  # Nothing here outlives the command: no need to wait for the disk.
  etcd --data-dir etcd --unsafe-no-fsync --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 >log/etcd.log 2>&1 &
  kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address=$ADDRESS --secure-port=6443 \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --allow-privileged=true \
    --client-ca-file=pki/ca.crt --tls-cert-file=pki/apiserver.crt --tls-private-key-file=pki/apiserver.key \
    --service-account-key-file=pki/sa.pub --service-account-signing-key-file=pki/sa.key \
    --service-account-issuer=https://kubernetes.default.svc \
    --kubelet-client-certificate=pki/admin.crt --kubelet-client-key=pki/admin.key \
    --kubelet-preferred-address-types=InternalIP "${AGGREGATION[@]}" >log/apiserver.log 2>&1 &
  wait_for 60 "API server" kubectl get --raw /readyz
  kube-controller-manager --kubeconfig=controllers.conf --authentication-kubeconfig=controllers.conf \
    --authorization-kubeconfig=controllers.conf --service-account-private-key-file=pki/sa.key \
    --root-ca-file=pki/ca.crt --use-service-account-credentials --leader-elect=false \
    --horizontal-pod-autoscaler-sync-period=5s >log/controllers.log 2>&1 &
  kube-scheduler --kubeconfig=scheduler.conf --authentication-kubeconfig=scheduler.conf \
    --authorization-kubeconfig=scheduler.conf --leader-elect=false >log/scheduler.log 2>&1 &
  kubectl create clusterrolebinding proxy --clusterrole=system:node-proxier --user=system:kube-proxy
  # Both nodes share one network namespace, so one proxy serves both.
  kube-proxy --kubeconfig=proxy.conf --proxy-mode=nftables --cluster-cidr=10.244.0.0/16 \
    --hostname-override=pool-node --conntrack-max-per-core=0 >log/proxy.log 2>&1 &
}

cluster_dns() {
  cat >"$C/Corefile" <<T
.:53 {
  errors
  ready
  kubernetes cluster.local {
    kubeconfig $C/admin.conf
  }
  cache 5
}
T
  coredns -conf "$C/Corefile" >"$C/log/coredns.log" 2>&1 &
  # A Service without a selector, in front of a process of the node.
  kubectl apply -f - <<T
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.10
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kube-dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}]
endpoints: [{addresses: [$ADDRESS], conditions: {ready: true}}]
T
}

node() { # NAME ADDRESS NUMBER LABELS
  local name=$1 address=$2 number=$3 labels=$4 n=$C/$1
  # Images stay from run to run: taking them in is most of the way to a node.
  local store=$CACHE/containerd/$name
  mkdir -p "$n"/{run,cni,kubelet} "$store/taken"
  cat >"$n/containerd.toml" <<T
version = 2
root = "$store"
state = "$n/run/containerd"
[grpc]
  address = "$n/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  # Where root may not lower oom_score_adj (no CAP_SYS_RESOURCE), every sandbox would fail.
  restrict_oom_score_adj = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$n/cni"
T
  cat >"$n/cni/10-bridge.conflist" <<T
{"cniVersion": "0.4.0", "name": "test", "plugins": [
  {"type": "bridge", "bridge": "cni$number", "isGateway": true, "ipMasq": true, "hairpinMode": true, "ipam":
    {"type": "host-local", "ranges": [[{"subnet": "10.244.$number.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
     "dataDir": "$n/run/ipam"}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
T
  containerd --config "$n/containerd.toml" >"$C/log/containerd-$name.log" 2>&1 &
  local ctr="ctr -a $n/run/containerd.sock -n k8s.io"
  wait_for 30 "containerd of $name" $ctr version
  take_images "$name" "$store" "$ctr"
  # cgroup v1 hierarchies, or the one of v2: the kubelet makes its own folders below this one.
  for hierarchy in /sys/fs/cgroup/*/; do
    case $(basename "$hierarchy") in
      cpu | cpuacct | cpuset | memory | devices | freezer | blkio | pids | systemd)
        mkdir -p "$hierarchy/skyscraper-test/$name" ;;
    esac
  done
  local inner=/sys/fs/cgroup/cpuset/skyscraper-test
  if [ -d $inner ]; then
    for folder in $inner $inner/$name; do
      cat /sys/fs/cgroup/cpuset/cpuset.cpus >$folder/cpuset.cpus
      cat /sys/fs/cgroup/cpuset/cpuset.mems >$folder/cpuset.mems
    done
  fi
  cat >"$n/kubelet.yaml" <<T
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
port: $((10250 + 100 * number))
healthzPort: $((10248 + 100 * number))
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $C/pki/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /skyscraper-test/$name
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
failCgroupV1: false
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix://$n/run/containerd.sock
resolvConf: $C/resolv.conf
tlsCertFile: $C/pki/$name.crt
tlsPrivateKeyFile: $C/pki/$name.key
imageGCHighThresholdPercent: 100
# A machine whose disk is nearly full is told so before. The kubelet would delete the images, which nobody can pull.
evictionHard: {memory.available: 100Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}
podLogsDir: $C/log/pods-$name
T
  kubelet --config="$n/kubelet.yaml" --kubeconfig="$C/$name.conf" --root-dir="$n/kubelet" --hostname-override="$name" \
    --node-ip="$address" --node-labels="$labels" >"$C/log/kubelet-$name.log" 2>&1 &
  wait_for 120 "node $name" ready_node "$name"
}

take_images() { # NODE STORE CTR
  local image snapshot names
  # What an earlier run's pods left behind, whose processes are long gone.
  for image in $($3 containers ls -q); do $3 containers rm "$image"; done
  for snapshot in $($3 snapshots ls | awk '$3 == "Active" {print $1}'); do $3 snapshots rm "$snapshot"; done
  names=$(cd "$IMAGES" && ls ./*.tar)
  [ "$1" = spot-node ] && names=${SPOT_IMAGES:-$names}
  for image in $names; do
    image=$(basename "$image")
    # The kubelet may have deleted it since. (Not `grep -q`, which would end the pipe before ctr does.)
    cmp -s "$IMAGES/$image.id" "$2/taken/$image" &&
      $3 images ls -q | grep -E "^localhost/(skyscraper-)?${image%.tar}:" && continue
    $3 images import "$IMAGES/$image"
    cp "$IMAGES/$image.id" "$2/taken/$image"
  done
  say "images of $1"
}

ready_node() { kubectl get node "$1" | grep -qw Ready; }

volumes() { # folders of the machine, for whoever claims one
  local number
  echo "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: local, annotations:
    {storageclass.kubernetes.io/is-default-class: 'true'}}, provisioner: kubernetes.io/no-provisioner}" | kubectl apply -f -
  for number in 1 2 3 4 5 6; do
    mkdir -m 777 "$C/volumes/$number"
    # mkdir's mode is cut by the umask.
    chmod 777 "$C/volumes/$number"
    echo "{apiVersion: v1, kind: PersistentVolume, metadata: {name: volume-$number}, spec: {capacity: {storage: 20Gi},
      accessModes: [ReadWriteOnce], storageClassName: local, persistentVolumeReclaimPolicy: Retain,
      hostPath: {path: $C/volumes/$number}}}" | kubectl apply -f -
  done
}

export KUBECONFIG=$C/admin.conf
echo "nameserver 127.0.0.1" >"$C/resolv.conf"
trap 'tail -20 "$C/log/start.log" >&4' EXIT
exec 3>&1 4>&2 >"$C/log/start.log" 2>&1
certificates
control_plane
cluster_dns
node pool-node $ADDRESS 0 skyscraper.dev/pool=on-prem
node spot-node $SPOT_ADDRESS 1 skyscraper.dev/pool=spot
volumes
exec >&3 2>&4 3>&- 4>&-
trap - EXIT
cd "$HERE/../.."
export NODE_ADDRESS=$ADDRESS
# Not exec: this shell is the namespaces' first process, and all others end with it.
"$@"
