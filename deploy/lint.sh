#!/usr/bin/env bash
# Checks the Dockerfile and everything in deploy/ with the linters of the directory that
# `make tools` fills.
#
#     deploy/lint.sh .tools
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(cd "$1" && pwd)
python=$tools/python/bin
promtool=$tools/debian/usr/bin/promtool
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "hadolint: Dockerfile"
"$python/hadolint" Dockerfile

echo "compose-spec: deploy/compose"
"$python/python" deploy/lint.py compose deploy/compose/compose.yaml deploy/compose/cluster.yaml

echo "kubectl kustomize, kubernetes-validate: deploy/kubernetes"
for kustomization in base cluster; do
    "$python/kubectl" kustomize "deploy/kubernetes/$kustomization" > "$work/$kustomization.yaml"
    "$python/kubernetes-validate" --strict --quiet "$work/$kustomization.yaml"
    "$python/python" deploy/lint.py manifests "$work/$kustomization.yaml"
done

echo "systemd-analyze: deploy/systemd"
# A root with the unit, what it executes, and systemd's own units. `verify` exits with 0
# in spite of warnings.
root=$work/root
install -D -m 755 /dev/null "$root/usr/local/bin/jobwatch"
install -D -m 755 /dev/null "$root/bin/kill"
install -D -m 644 deploy/systemd/jobwatch.service "$root/etc/systemd/system/jobwatch.service"
mkdir -p "$root/usr/lib/systemd"
cp -r /usr/lib/systemd/system "$root/usr/lib/systemd/system"
if ! warnings=$(systemd-analyze verify --man=no --root="$root" jobwatch.service 2>&1) || [[ $warnings ]]; then
    echo "$warnings" >&2
    exit 1
fi
# The exposure in tenths: 0 is none, 100 the worst.
systemd-analyze security --offline=true --threshold=15 deploy/systemd/jobwatch.service > "$work/exposure" ||
    { cat "$work/exposure" >&2; exit 1; }

echo "promtool: deploy/prometheus, deploy/compose, deploy/grafana"
"$promtool" check rules deploy/prometheus/alerts.yml
"$promtool" test rules deploy/prometheus/alerts_test.yml
# The rules are where Compose mounts them.
for config in prometheus cluster-prometheus; do
    sed "s|/etc/prometheus/alerts.yml|$PWD/deploy/prometheus/alerts.yml|" "deploy/compose/$config.yml" > "$work/prometheus.yml"
    "$promtool" check config "$work/prometheus.yml"
done
"$python/python" deploy/lint.py dashboard deploy/grafana/jobwatch.json > "$work/dashboard.yml"
"$promtool" check rules "$work/dashboard.yml"
