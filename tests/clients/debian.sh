#!/usr/bin/env bash
# Unpacks promtool and Prometheus of the Debian package of that name, and libfaketime, into the
# directory `debian` below the given one. Needs apt and dpkg, but no root: apt gets directories of
# its own.
#
#     tests/clients/debian.sh .tools
#
# A Debian release has one minor version of the package, to which security fixes are
# added, so the patch version is not fixed.
set -euo pipefail

version='2.42.*'
tools=$(cd "$1" && pwd)
work=$(mktemp -d "$tools/apt-XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"

apt() {
    apt-get -qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" \
        -o APT::Sandbox::User= "$@"
}

cd "$work"
apt update
apt download "prometheus=$version" libfaketime
rm -rf "$tools/debian"
for package in prometheus_*.deb libfaketime_*.deb; do
    dpkg-deb --extract "$package" "$tools/debian"
done
"$tools/debian/usr/bin/promtool" --version
