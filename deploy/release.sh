#!/usr/bin/env bash
# Builds the release archive for this machine's architecture, from the commit that is checked
# out:
#
#     deploy/release.sh [--verify] [--trial] DIRECTORY
#
#   jobwatch-VERSION-TARGET.tar.gz    program, manual pages, completions, deploy/, licence
#   jobwatch-VERSION.cdx.json         SBOM in CycloneDX's form
#   SHA256SUMS
#
# The same commit and toolchain give the same bytes, wherever the sources are. --verify builds
# twice, in directories of different names, and compares the programs. --trial permits changes
# that are not committed, and a changelog without a date.
set -euo pipefail
cd "$(dirname "$0")/.."

verify='' trial=''
while [[ ${1-} == --* ]]; do
    case $1 in
        --verify) verify=yes ;;
        --trial) trial=yes ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "${1:?the directory for the result}"
result=$(cd "$1" && pwd)

fail() { echo "error: $1" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
target=$(rustc -vV | sed -n 's/^host: //p')
if [[ ! $trial ]]; then
    [[ -z $(git status --porcelain) ]] || fail "there are changes that are not committed"
    grep -Eq "^## \[$version\] - [0-9]{4}-[0-9]{2}-[0-9]{2}$" CHANGELOG.md ||
        fail "CHANGELOG.md has no section \"## [$version] - YYYY-MM-DD\""
fi

# What would differ from build to build: time, directories, language, and the umask.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
JOBWATCH_COMMIT=$(git rev-parse --short=12 HEAD)
export SOURCE_DATE_EPOCH JOBWATCH_COMMIT
export LC_ALL=C TZ=UTC CARGO_INCREMENTAL=0
umask 022
cargo_home=${CARGO_HOME:-$HOME/.cargo}

work=$(mktemp -d "$result/build-XXXXXX")
trap 'rm -rf "$work"' EXIT

# build NAME: builds in $work/NAME; the program is $work/NAME/target/release/jobwatch.
build() {
    local sources=$work/$1/sources target_directory=$work/$1/target
    mkdir -p "$sources"
    # What is tracked, as it is in the working tree.
    git ls-files -z | tar --create --null --files-from=- | tar --extract --directory="$sources"
    local -x CARGO_TARGET_DIR=$target_directory
    local -x RUSTFLAGS="--remap-path-prefix=$cargo_home=/cargo \
--remap-path-prefix=$sources=/jobwatch --remap-path-prefix=$target_directory=/target"
    local -x CFLAGS="-ffile-prefix-map=$cargo_home=/cargo \
-ffile-prefix-map=$sources=/jobwatch -ffile-prefix-map=$target_directory=/target"
    (cd "$sources" && cargo build --locked --release --no-default-features --features jemalloc)
}

build one
program=$work/one/target/release/jobwatch
if [[ $verify ]]; then
    build another-directory
    cmp "$program" "$work/another-directory/target/release/jobwatch" || fail "two builds differ"
    echo "two builds in different directories are equal"
fi
if strings -a "$program" | grep -F -e "$work" -e "$cargo_home"; then
    fail "the program contains directories of this machine"
fi

name=jobwatch-$version-$target
package=$work/$name
mkdir -p "$package"/completions
install "$program" "$package/jobwatch"
"$program" man --out "$package/man/man1"
for shell in bash zsh fish; do
    "$program" completions "$shell" > "$package/completions/jobwatch.$shell"
done
cp LICENSE README.md CHANGELOG.md jobwatch.example.toml "$package"
mkdir "$package/deploy"
git ls-files -z deploy | tar --create --null --files-from=- | tar --extract --directory="$package"
tar --create --directory="$work" --sort=name --format=ustar --owner=0 --group=0 --numeric-owner \
    --mtime="@$SOURCE_DATE_EPOCH" "$name" | gzip --no-name -9 > "$result/$name.tar.gz"

# The SBOM names what is linked into this program.
tools=$PWD/.tools/cargo
if [[ ! -x $tools/bin/cargo-cyclonedx ]]; then
    cargo install --quiet --locked --root "$tools" --version 0.5.9 cargo-cyclonedx
fi
(
    cd "$work/one/sources"
    "$tools/bin/cargo-cyclonedx" cyclonedx --format json --spec-version 1.5 --target "$target" \
        --no-default-features --features jemalloc --override-filename sbom
)
mv "$work/one/sources/sbom.json" "$result/jobwatch-$version.cdx.json"

cd "$result"
sha256sum "$name.tar.gz" "jobwatch-$version.cdx.json" > SHA256SUMS
cat SHA256SUMS
