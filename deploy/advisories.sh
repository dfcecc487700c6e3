#!/usr/bin/env bash
# Compares Cargo.lock with the RustSec database: a copy in $JOBWATCH_ADVISORY_DB or in
# ~/.cargo/advisory-db. Without one there is nothing to compare with; it says so and succeeds.
# The network is not used: `git clone https://github.com/RustSec/advisory-db` gets a copy.
#
#     deploy/advisories.sh .tools
set -euo pipefail
cd "$(dirname "$0")/.."
database=${JOBWATCH_ADVISORY_DB:-${CARGO_HOME:-$HOME/.cargo}/advisory-db}
if [[ ! -d $database/crates ]]; then
    echo "skipped: advisories are not checked, there is no RustSec database in $database"
    exit 0
fi
"$1/python/bin/cargo-audit" audit --no-fetch --stale --db "$database" --file Cargo.lock
