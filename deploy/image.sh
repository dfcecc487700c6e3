#!/usr/bin/env bash
# Builds the program of the container image without a container engine: with the files that
# .dockerignore lets into the build and the cargo command of the Dockerfile. The result is
# DIRECTORY/jobwatch.
#
#     deploy/image.sh DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "$1"
directory=$(cd "$1" && pwd)

context=$directory/context
rm -rf "$context"
mkdir "$context"
# Each line of .dockerignore after `*` lets in one path.
sed -n 's/^!//p' .dockerignore | while read -r path; do cp -a --parents "$path" "$context"; done

features=$(sed -n 's/^ARG FEATURES=//p' Dockerfile)
command=$(grep -o 'cargo build [^;]*' Dockerfile)
command=${command/\"\$FEATURES\"/$features}
echo "$command"
read -ra words <<< "$command"

# As in the Dockerfile, where the target directory is below the sources.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
(cd "$context" && "${words[@]}")
install "$CARGO_TARGET_DIR/release/jobwatch" "$directory/jobwatch"
ls -l "$directory/jobwatch"
