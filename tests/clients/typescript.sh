#!/usr/bin/env bash
# Packs clients/typescript as it is published, checks what the archive holds, installs it,
# and compiles programs that use it.
#
#     tests/clients/typescript.sh TOOLS OUT
#
# Leaves the programs `example` and `check` in the empty directory OUT.
set -euo pipefail

tools=$(cd "$1" && pwd) out=$(cd "$2" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
modules=$tools/node/node_modules
export PATH=$tools/python/bin:$PATH

mkdir -p "$out/source/clients" "$out/app/node_modules"
cp -r "$root/proto" "$root/LICENSE" "$out/source/"
cp -r "$root/clients/typescript" "$out/source/clients/"
cd "$out/source/clients/typescript"
rm -rf node_modules dist src/gen
ln -s "$modules" node_modules
npm pack --silent --pack-destination "$out" >"$out/pack.log" 2>&1 || { cat "$out/pack.log"; exit 1; }
"$tools/python/bin/python" "$root/tests/clients/contents.py" "$out"/jobwatch-client-*.tgz

cd "$out/app"
for package in @bufbuild @grpc @types undici-types; do
    ln -s "$modules/$package" node_modules/
done
mkdir node_modules/jobwatch-client
tar -xzf "$out"/jobwatch-client-*.tgz -C node_modules/jobwatch-client --strip-components 1
echo '{"type": "module"}' >package.json
cp "$root/examples/typescript/client.ts" "$root/tests/clients/helpers.ts" .
"$modules/.bin/tsc" --strict --target es2022 --module nodenext --types node --outDir . client.ts helpers.ts

program() {
    printf '#!/bin/sh\nexec node %s "$@"\n' "$out/app/$2" >"$out/$1"
    chmod +x "$out/$1"
}
program example client.js
program check helpers.js
