#!/bin/sh
# The C example in README.md compiles with warnings as errors, links and runs. It names a model that is not there: it has to
# say so in words, not to crash.
#   readme.sh SOURCE LIBDIR CC
set -eu
src=$1 lib=$2 cc=$3
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

awk '/^```c$/ { inside = 1; next } /^```/ { inside = 0 } inside' "$src/README.md" > "$tmp/example.c"
if ! [ -s "$tmp/example.c" ]; then
  echo "README.md has no C example"
  exit 1
fi
"$cc" -std=c17 -Wall -Wextra -Wpedantic -Werror -I"$src/include" "$tmp/example.c" -L"$lib" -lgenvid \
  "-Wl,-rpath,$lib" -o "$tmp/example"
cd "$tmp"
if ./example > out 2>&1; then
  echo "the example found the model that is not there"
  exit 1
fi
cat out
grep -q models/wan out
