#!/usr/bin/env bash
# Pin the base images: deploy/images/pin.sh. Writes the digest that each tag has in its registry now into the Dockerfiles'
# ARG lines. Run it again to take a newer base of the same tag, build, test, and commit what changed. Needs skopeo.
#
#   SKOPEO_OPTIONS  for `skopeo inspect`, e.g. --authfile
set -euo pipefail
cd "$(dirname "$0")"

for file in Dockerfile ./*.Dockerfile; do
  sed -n 's/^ARG \([A-Z]*_IMAGE\)=\(.*\)$/\1 \2/p' "$file" | while read -r name image; do
    tag=${image%@*}
    # The index of all platforms, not one platform's image.
    # shellcheck disable=SC2086 - options are words
    digest=$(skopeo inspect ${SKOPEO_OPTIONS:-} --format '{{.Digest}}' "docker://$tag" </dev/null)
    sed -i "s|^ARG $name=.*|ARG $name=$tag@$digest|" "$file"
    echo "$file: $name=$tag@$digest"
  done
done
