#!/bin/sh
# What a clone weighs, and how long each room is. Limits: the tree 56 MiB, assets 48 MiB, one file 16 MiB.
#
#   size.sh [ROOT]         counts the files that git tracks
set -eu
cd "${1-$(dirname "$0")/..}"

git ls-files -z | xargs -0 stat -c '%s %n' | awk '
  { size = $1; name = substr($0, length($1) + 2); all += size }
  name ~ /^assets\// { assets += size }
  size > 16 * 1048576 { printf "size.sh: %s has %.1f MiB; a file may have 16\n", name, size / 1048576; failed = 1 }
  END {
    printf "size.sh: tree %.1f of 56 MiB, assets %.1f of 48 MiB\n", all / 1048576, assets / 1048576
    if (all > 56 * 1048576 || assets > 48 * 1048576) { print "size.sh: too large"; failed = 1 }
    exit failed
  }'

printf '%-10s %8s %8s\n' room lines files
for room in include core io attention vision diffusion pipelines cli tests assets; do
  git ls-files -z "$room" | tr '\0' '\n' | grep -E '\.(c|h|cu|cuh|py|sh)$' > "${TMPDIR:-/tmp}/size.$$" || true
  [ -s "${TMPDIR:-/tmp}/size.$$" ] || continue
  printf '%-10s %8d %8d\n' "$room" "$(xargs cat < "${TMPDIR:-/tmp}/size.$$" | wc -l)" "$(wc -l < "${TMPDIR:-/tmp}/size.$$")"
done
rm -f "${TMPDIR:-/tmp}/size.$$"
