#!/usr/bin/env bash
# Generates a client from the contract in one language, beside that ecosystem's own package of
# Google's common types, and builds two programs with it: `check` of tests/clients/languages, and
# `example` of examples/.
#
#     tests/clients/languages.sh LANGUAGE TOOLS OUT
#
# LANGUAGE is cpp, go, java or ruby; TOOLS is the directory into which `make tools` installs; OUT is
# an empty directory.
set -euo pipefail

language=$1 tools=$(cd "$2" && pwd) out=$(cd "$3" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
proto=$here/../../proto
examples=$here/../../examples
debian=$tools/languages
libraries=$debian/usr/lib/x86_64-linux-gnu
export LD_LIBRARY_PATH=$libraries

# Generates the client with the plugins of this language.
generate() {
    "$debian/usr/bin/protoc" "-I$proto" "-I$debian/usr/include" "$@" \
        jobwatch/v1/job.proto jobwatch/v1/job_status_service.proto
}

# Generates the types of error details, for a language whose package is missing or too old.
generate_details() {
    common=$("$tools/python/bin/python" -c 'import google.rpc; print(list(google.rpc.__path__)[0])')
    "$debian/usr/bin/protoc" "-I$common/../.." "-I$debian/usr/include" "$@" \
        google/rpc/status.proto google/rpc/error_details.proto
}

plugin() {
    echo "--plugin=protoc-gen-$1=$debian/usr/bin/$2"
}

# Makes a program of a command.
program() {
    printf '#!/bin/sh\nexec env %s "$@"\n' "$2" >"$out/$1"
    chmod +x "$out/$1"
}

case $language in
cpp)
    generate --cpp_out="$out" --grpc_out="$out" "$(plugin grpc grpc_cpp_plugin)"
    generate_details --cpp_out="$out"
    compile() {
        g++ -std=c++17 -O0 "-I$out" "-I$debian/usr/include" "$@"
    }
    for source in "$out"/jobwatch/v1/*.cc "$out"/google/rpc/*.cc; do
        compile -c "$source" -o "${source%.cc}.o"
    done
    for name in check:$here/languages/client.cc example:$examples/cpp/client.cc; do
        compile "${name#*:}" "$out"/jobwatch/v1/*.o "$out"/google/rpc/*.o "-L$libraries" \
            "-Wl,-rpath-link,$libraries" -lgrpc++ -lgrpc -lgpr -lprotobuf -labsl_synchronization -lpthread \
            -o "$out/${name%%:*}.bin"
        program "${name%%:*}" "LD_LIBRARY_PATH=$libraries $out/${name%%:*}.bin"
    done
    ;;
go)
    sources=$out/src
    mkdir -p "$sources/check" "$sources/example"
    generate --go_out="$sources" "$(plugin go protoc-gen-go)" \
        --go-grpc_out="$sources" "$(plugin go-grpc protoc-gen-go-grpc)"
    cp "$here/languages/client.go" "$sources/check/main.go"
    cp "$examples/go/main.go" "$sources/example/main.go"
    for name in check example; do
        GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local GOCACHE=$out/cache \
            GOPATH=$out:$debian/usr/share/gocode "$tools/python/bin/go" build -o "$out/$name.bin" $name
        # Before version 1.40 of grpc-go, retries are off by default.
        program $name "GRPC_GO_RETRY=on $out/$name.bin"
    done
    ;;
java)
    mkdir "$out/generated" "$out/details"
    generate --java_out="$out/generated" --grpc_out="$out/generated" "$(plugin grpc grpc_java_plugin)"
    # Debian's package has no ErrorInfo yet: the example finds newer types in front of it.
    generate_details --java_out="$out/details"
    jars=$(printf '%s:' "$debian"/usr/share/java/*.jar)
    compile() {
        mapfile -t sources < <(find "${@:3}" -name '*.java')
        javac -nowarn -cp "$2" -d "$out/classes/$1" "${sources[@]}"
    }
    compile details "$jars" "$out/details"
    compile generated "$jars" "$out/generated"
    compile check "$jars$out/classes/generated" "$here/languages"
    newer=$out/classes/details:$jars$out/classes/generated
    compile example "$newer" "$examples/java"
    program check "java -cp $jars$out/classes/generated:$out/classes/check Client"
    program example "java -cp $newer:$out/classes/example Client"
    ;;
ruby)
    generate --ruby_out="$out" --grpc_out="$out" "$(plugin grpc grpc_ruby_plugin)"
    gems=$libraries/rubygems-integration/3.1.0
    path=$(printf '%s:' "$debian"/usr/lib/ruby/{vendor_ruby,3.1.0} \
        "$libraries"/ruby/{3.1.0,vendor_ruby/3.1.0} "$gems"/gems/grpc-*/{src/ruby/lib,etc} \
        "$gems"/extensions/x86_64-linux/3.1.0/* \
        "$debian"/usr/share/rubygems-integration/all/gems/googleapis-common-protos-types-*/lib)$out
    ruby="LD_LIBRARY_PATH=$libraries RUBYLIB=$path $debian/usr/bin/ruby"
    program check "$ruby $here/languages/client.rb"
    program example "$ruby $examples/ruby/client.rb"
    ;;
*)
    echo "no such language: $language; write cpp, go, java or ruby" >&2
    exit 2
    ;;
esac
