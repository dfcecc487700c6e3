#!/usr/bin/env bash
# Unpacks the gRPC packages of C++, Go, Java and Ruby of Debian into the directory `languages`
# below the given one. Needs apt and dpkg, but no root: apt gets directories of its own.
# The compilers g++ and javac are not among them; Go is in requirements.txt.
#
#     tests/clients/languages-debian.sh .tools
set -euo pipefail

# Packages that another package's name includes are listed too: nothing is resolved, so that
# the list does not depend on what the machine has.
packages=(
    # All.
    protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libprotobuf32 libprotobuf-lite32 libprotoc32
    # C++, and Ruby's libraries.
    libabsl-dev libabsl20220623 libc-ares2 libgrpc-dev libgrpc29 libgrpc++-dev libgrpc++1.51 libre2-9
    # Go.
    golang-github-golang-protobuf-1-5-dev golang-golang-x-net-dev golang-golang-x-sys-dev
    golang-golang-x-text-dev golang-google-genproto-dev golang-google-grpc-dev
    golang-google-protobuf-dev protoc-gen-go-1-5 protoc-gen-go-grpc
    # Java.
    libgeronimo-annotation-1.3-spec-java libgoogle-common-protos-java libgoogle-gson-java libgrpc-java
    libguava-java libnetty-java libopencensus-java libperfmark-java libprotobuf-java libtomcat9-java
    protobuf-compiler-grpc-java-plugin
    # Ruby.
    libruby3.1 ruby3.1 ruby-google-protobuf ruby-googleapis-common-protos-types ruby-grpc
)
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
apt download "${packages[@]}"
rm -rf "$tools/languages"
for package in *.deb; do
    dpkg-deb --extract "$package" "$tools/languages"
done
# The commands that alternatives would link.
[ -e "$tools/languages/usr/bin/ruby" ] || ln -s ruby3.1 "$tools/languages/usr/bin/ruby"
LD_LIBRARY_PATH=$tools/languages/usr/lib/x86_64-linux-gnu "$tools/languages/usr/bin/protoc" --version
