#!/bin/sh
# Installs into a folder of its own, looks at what came, and builds and runs a client through the CMake package (shared and
# static) and through pkg-config.
#   run.sh SOURCE BUILD CC
set -eu
src=$1 build=$2 cc=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
prefix=$tmp/prefix

fail() { echo "install: $*"; exit 1; }

cmake --install "$build" --prefix "$prefix" > "$tmp/log" || { cat "$tmp/log"; fail "cmake --install failed"; }
library=$(find "$prefix" -name libgenvid.so)
[ -n "$library" ] || fail "no libgenvid.so"
libdir=$(dirname "$library")
for file in include/genvid.h bin/genvid share/man/man1/genvid.1 share/genvid/models/model_index.json; do
  [ -s "$prefix/$file" ] || fail "$file is missing"
done
[ -s "$libdir/libgenvid.a" ] || fail "libgenvid.a is missing"

# The soname carries the major number; what the library exports is what the header declares, no less and no more.
readelf -d "$library" | grep -q 'soname: \[libgenvid.so.1\]' || fail "the soname is not libgenvid.so.1"
nm -D --defined-only "$library" | awk '{ print $3 }' | sort > "$tmp/exported"
sed -n 's/^GV_API .*[ *]\(gv_[a-z_]*\)(.*/\1/p' "$src/include/genvid.h" | sort > "$tmp/declared"
cmp "$tmp/exported" "$tmp/declared" || { diff "$tmp/exported" "$tmp/declared" || true; fail "exports (<) and header (>) differ"; }

"$prefix/bin/genvid" --version
"$prefix/bin/genvid" help --man | cmp - "$prefix/share/man/man1/genvid.1" || fail "the manual page is stale"

cmake -S "$src/tests/install_client" -B "$tmp/client" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_COMPILER="$cc" > "$tmp/log" &&
  cmake --build "$tmp/client" >> "$tmp/log" || { cat "$tmp/log"; fail "the client does not build with the CMake package"; }
"$tmp/client/client_shared"
"$tmp/client/client_static"

PKG_CONFIG_PATH=$libdir/pkgconfig
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # flags are words
"$cc" "$src/tests/install_client/client.c" $(pkg-config --cflags --libs genvid) "-Wl,-rpath,$libdir" -o "$tmp/client_pc"
"$tmp/client_pc"
# shellcheck disable=SC2046
"$cc" "$src/tests/install_client/client.c" $(pkg-config --cflags genvid) "$libdir/libgenvid.a" \
  $(pkg-config --static --libs genvid | sed 's/-lgenvid//') -o "$tmp/client_pc_static"
"$tmp/client_pc_static"
echo "install: CMake package (shared, static) and pkg-config"
