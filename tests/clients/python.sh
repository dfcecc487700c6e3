#!/usr/bin/env bash
# Builds clients/python as it is published, from its source distribution, checks what the
# archives hold, installs it, and checks its types and those of its users.
#
#     tests/clients/python.sh TOOLS OUT
#
# Leaves the programs `example`, `example-asyncio` and `check` in the empty directory OUT.
set -euo pipefail

tools=$(cd "$1" && pwd) out=$(cd "$2" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$tools/python/bin/python

mkdir -p "$out/source/clients" "$out/dist"
cp -r "$root/proto" "$root/LICENSE" "$out/source/"
cp -r "$root/clients/python" "$out/source/clients/"
cd "$out/source/clients/python"
"$python" -c 'import sys, setuptools.build_meta as build; build.build_sdist(sys.argv[1])' "$out/dist" >"$out/sdist.log"
cd "$out"
"$python" -m pip --quiet --disable-pip-version-check --no-input wheel --no-build-isolation --no-deps --no-index \
    --wheel-dir "$out/dist" "$out"/dist/jobwatch_client-*.tar.gz
"$python" "$root/tests/clients/contents.py" "$out"/dist/jobwatch_client-*
"$python" -m pip --quiet --disable-pip-version-check --no-input install --no-deps --no-index --target "$out/site" \
    "$out"/dist/jobwatch_client-*.whl

cp "$root/examples/python/client.py" "$root/examples/python/client_asyncio.py" "$out/"
MYPYPATH=$out/site "$python" -m mypy --strict --cache-dir "$out/mypy" --config-file "$root/clients/python/pyproject.toml" \
    -p jobwatch_client >"$out/mypy.log" || { cat "$out/mypy.log"; exit 1; }
MYPYPATH=$out/site "$python" -m mypy --strict --cache-dir "$out/mypy" --config-file "$root/clients/python/pyproject.toml" \
    "$out/client.py" "$out/client_asyncio.py" >"$out/mypy.log" || { cat "$out/mypy.log"; exit 1; }

program() {
    printf '#!/bin/sh\nexec env PYTHONPATH=%s %s -B %s "$@"\n' "$out/site" "$python" "$2" >"$out/$1"
    chmod +x "$out/$1"
}
program example "$out/client.py"
program example-asyncio "$out/client_asyncio.py"
program check "$root/tests/clients/helpers.py"
