#!/usr/bin/env bash
# Build the chart's images for the cluster of cluster.sh, as tar files: tools/kubernetes/test_images.sh [NAME …]
#
# All of them by default; `keda` only by name, after `install.sh keda`.
# Without a registry: the base image is a minimal Debian with Python, made by mmdebstrap, and uv is the one that the
# Makefile uses. An image whose sources did not change is not built again. Needs root, buildah, mmdebstrap and Go.
#
#   UV             path of uv
#   BUILD_OPTIONS  more options for buildah, see deploy/images/build.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
HOME_FOLDER=${SKYSCRAPER_HOME:-${XDG_CACHE_HOME:-$HOME/.cache}/skyscraper}/kubernetes/images
UV=${UV:-$(command -v uv || echo .cache/uv/bin/uv)}
export BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}
mkdir -p "$HOME_FOLDER/tar"
exec 9>"$HOME_FOLDER/.lock"
flock 9

say() { echo "test images: $*" >&2; }

base() {
  local folder=$HOME_FOLDER/base
  if [ ! -f "$HOME_FOLDER/python-base.tar" ]; then
    say "making a base image (two minutes)"
    mmdebstrap --quiet --variant=minbase --include=python3-minimal,libpython3-stdlib,python3-distutils,ca-certificates \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
      --dpkgopt='path-exclude=/usr/share/doc/*' bookworm "$HOME_FOLDER/python-base.new.tar"
    mv "$HOME_FOLDER/python-base.new.tar" "$HOME_FOLDER/python-base.tar"
  fi
  if ! buildah inspect localhost/python-base:1 >/dev/null 2>&1; then
    mkdir -p "$folder"
    cp "$HOME_FOLDER/python-base.tar" "$folder/"
    printf 'FROM scratch\nADD python-base.tar /\n' >"$folder/Dockerfile"
    buildah build -q -t localhost/python-base:1 "$folder" >/dev/null
    rm -rf "$folder"
  fi
  mkdir -p "$folder"
  cp "$UV" "$folder/uv"
  printf 'FROM scratch\nCOPY uv /uv\n' >"$folder/Dockerfile"
  buildah build -q --layers -t localhost/uv:1 "$folder" >/dev/null
  (cd tools/kubernetes/pause && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o "$folder/pause" .)
  printf 'FROM scratch\nCOPY pause /pause\nENTRYPOINT ["/pause"]\n' >"$folder/Dockerfile"
  buildah build -q --layers -t localhost/pause:1 "$folder" >/dev/null
  rm -rf "$folder"
}

archive() { # IMAGE FILE
  local id
  id=$(buildah inspect --type image --format '{{.FromImageID}}' "$1")
  [ -f "$2" ] && [ "$(cat "$2.id" 2>/dev/null)" = "$id" ] && return
  rm -f "$2"
  buildah push -q "$1" "docker-archive:$2:$1"
  echo "$id" >"$2.id"
}

keda() { # from KEDA's programs, as its own images are: nothing else in them
  local folder=$HOME_FOLDER/keda
  mkdir -p "$folder"
  cp "$HOME_FOLDER/../bin/keda-operator" "$HOME_FOLDER/../bin/keda-adapter" "$folder/"
  printf 'FROM scratch\nCOPY keda-operator /keda\nCOPY keda-adapter /keda-adapter\nUSER 65532:65532\n' >"$folder/Dockerfile"
  buildah build -q --layers -t localhost/keda:1 "$folder" >/dev/null
  rm -rf "$folder"
  archive localhost/keda:1 "$HOME_FOLDER/tar/keda.tar"
}

base
archive localhost/pause:1 "$HOME_FOLDER/tar/pause.tar"
for name in "${@:-publisher decoder inference tuner loader burst cli kafka models}"; do
  for one in $name; do
    say "$one"
    if [ "$one" = keda ]; then keda; continue; fi
    BUILDER=buildah BUILD_OPTIONS="--quiet --layers --build-arg PYTHON_IMAGE=localhost/python-base:1 \
      --build-arg UV_IMAGE=localhost/uv:1 --volume $("$UV" cache dir):/root/.cache/uv ${BUILD_OPTIONS:-}" \
      deploy/images/build.sh "$one" >/dev/null
    archive "localhost/skyscraper-$one:$(sed -n 's/^appVersion: //p' deploy/helm/skyscraper/Chart.yaml)" \
      "$HOME_FOLDER/tar/$one.tar"
  done
done
