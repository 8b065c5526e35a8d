#!/bin/sh
# Every test that INVARIANTS.md names is there and is run. A name that ends in ... is the beginning of one.
#
#   invariants.sh ROOT
set -eu
cd "$1"

names=$(grep -o '`[a-z0-9_]*_[a-z0-9_]*\(\.\.\.\)\{0,1\}`' tests/attention/INVARIANTS.md | tr -d '`' | sort -u)
[ "$(printf '%s\n' "$names" | wc -l)" -gt 40 ] || { echo "invariants.sh: INVARIANTS.md names next to no tests" >&2; exit 1; }
failed=0
for name in $names; do
  case $name in
    test_attention_*) continue ;; # programs
    *...) want="cmocka_unit_test(${name%...}" ;;
    *) want="cmocka_unit_test($name)" ;;
  esac
  grep -qF "$want" tests/attention/*.c tests/diffusion/*.c || { echo "INVARIANTS.md: no test $name is run"; failed=1; }
done
exit $failed
