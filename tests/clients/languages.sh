#!/usr/bin/env bash
# Generates a client from the contract in one language, beside that ecosystem's own package of
# Google's common types, and calls a gateway with it.
#
#     tests/clients/languages.sh LANGUAGE TOOLS ADDRESS BACKEND JOB_ID
#
# LANGUAGE is cpp, go, java or ruby; TOOLS is the directory into which `make tools` installs.
set -euo pipefail

language=$1 tools=$(cd "$2" && pwd)
shift 2
here=$(cd "$(dirname "$0")" && pwd)
proto=$here/../../proto
debian=$tools/languages
libraries=$debian/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH=$libraries
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Generates the client with the plugins of this language.
generate() {
    "$debian/usr/bin/protoc" "-I$proto" "-I$debian/usr/include" "$@" \
        jobwatch/v1/job.proto jobwatch/v1/job_status_service.proto
}

plugin() {
    echo "--plugin=protoc-gen-$1=$debian/usr/bin/$2"
}

case $language in
cpp)
    common=$("$tools/python/bin/python" -c 'import google.rpc; print(list(google.rpc.__path__)[0])')
    generate --cpp_out="$work" --grpc_out="$work" "$(plugin grpc grpc_cpp_plugin)"
    "$debian/usr/bin/protoc" "-I$common/../.." "-I$debian/usr/include" --cpp_out="$work" \
        google/rpc/status.proto google/rpc/error_details.proto
    g++ -std=c++17 -O0 "-I$work" "-I$debian/usr/include" "$here/languages/client.cc" \
        "$work"/jobwatch/v1/*.cc "$work"/google/rpc/*.cc "-L$libraries" "-Wl,-rpath-link,$libraries" \
        -lgrpc++ -lgrpc -lgpr -lprotobuf -labsl_synchronization -lpthread -o "$work/client"
    "$work/client" "$@"
    ;;
go)
    sources=$work/src
    mkdir -p "$sources/client"
    generate --go_out="$sources" "$(plugin go protoc-gen-go)" \
        --go-grpc_out="$sources" "$(plugin go-grpc protoc-gen-go-grpc)"
    cp "$here/languages/client.go" "$sources/client/main.go"
    GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local GOCACHE=$work/cache \
        GOPATH=$work:$debian/usr/share/gocode "$tools/python/bin/go" build -o "$work/run" client
    "$work/run" "$@"
    ;;
java)
    generate --java_out="$work" --grpc_out="$work" "$(plugin grpc grpc_java_plugin)"
    jars=$(printf '%s:' "$debian"/usr/share/java/*.jar)
    mapfile -t sources < <(find "$work" -name '*.java')
    javac -nowarn -cp "$jars" -d "$work/classes" "${sources[@]}" "$here/languages/Client.java"
    java -cp "$jars$work/classes" Client "$@"
    ;;
ruby)
    generate --ruby_out="$work" --grpc_out="$work" "$(plugin grpc grpc_ruby_plugin)"
    gems=$libraries/rubygems-integration/3.1.0
    RUBYLIB=$(printf '%s:' "$debian"/usr/lib/ruby/{vendor_ruby,3.1.0} \
        "$libraries"/ruby/{3.1.0,vendor_ruby/3.1.0} "$gems"/gems/grpc-*/{src/ruby/lib,etc} \
        "$gems"/extensions/x86_64-linux/3.1.0/* \
        "$debian"/usr/share/rubygems-integration/all/gems/googleapis-common-protos-types-*/lib)$work
    RUBYLIB=$RUBYLIB "$debian/usr/bin/ruby" "$here/languages/client.rb" "$@"
    ;;
*)
    echo "no such language: $language; write cpp, go, java or ruby" >&2
    exit 2
    ;;
esac
