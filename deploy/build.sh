#!/usr/bin/env bash
# Build an image from a base that is pinned by digest.   deploy/build.sh REGISTRY/NAME:TAG [cpu|training|gpu] [BASE@sha256:...]
# PLATFORM is that of the nodes, not of the machine that builds: linux/amd64 where nothing is said.
# Without BASE the digest of today's python:3.11-slim-bookworm is asked for and printed; note it to build the same again.
set -euo pipefail
cd "$(dirname "$0")/.."
image=${1:?"an image name is needed: deploy/build.sh REGISTRY/NAME:TAG [cpu|training|gpu] [BASE@sha256:...]"}
target=${2:-cpu}
docker buildx version >/dev/null 2>&1 || { echo "build.sh: docker with the plugin buildx is needed, and \`docker buildx version\` fails" >&2; exit 2; }
name=python:3.11-slim-bookworm
base=${3:-$name@$(docker buildx imagetools inspect "$name" --format '{{.Manifest.Digest}}')}
[[ $base =~ @sha256:[0-9a-f]{64}$ ]] || { echo "build.sh: the base must end in @sha256: and 64 hex digits, got $base" >&2; exit 2; }
echo "base: $base" >&2
docker buildx build --load --platform "${PLATFORM:-linux/amd64}" --file deploy/Dockerfile --target "$target" --build-arg PYTHON_IMAGE="$base" --tag "$image" .
