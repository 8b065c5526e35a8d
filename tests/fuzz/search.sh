#!/bin/sh
# A search of GV_FUZZ_SECONDS (30) with libFuzzer, from the seeds given. What it found new is dropped unless GV_FUZZ_KEEP names
# a folder; a crash is written into the current one, to be fixed and then committed into the harness's corpus.
# A picture of few bytes may have 100 million pixels, which take a minute under sanitizers: only what takes five hangs.
# libav asks for as much memory as a hostile index claims and does without when there is none, so one block may have 1.5 GB.
#   search.sh HARNESS DICTIONARY SEEDS...
set -eu
harness=$1 dictionary=$2
shift 2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/seeds" "$tmp/files"
number=0
for seed; do # golden folders hold other files too: libFuzzer wants folders of inputs alone
  for file in "$seed" "$seed"/*; do
    [ -f "$file" ] || continue
    number=$((number + 1))
    cp "$file" "$tmp/seeds/$number"
  done
done
[ "$number" -gt 0 ] || { echo "no seeds in $*"; exit 1; }
kept=${GV_FUZZ_KEEP:-$tmp}/$(basename "$harness")
mkdir -p "$kept"
export TMPDIR="$tmp/files" ASAN_OPTIONS=allocator_may_return_null=1:max_allocation_size_mb=1500:${ASAN_OPTIONS-}
"$harness" -max_total_time="${GV_FUZZ_SECONDS:-30}" -timeout=300 -rss_limit_mb=3000 -malloc_limit_mb=1600 -max_len=32768 \
  -dict="$dictionary" -print_final_stats=1 -verbosity=1 "$kept" "$tmp/seeds" > "$tmp/log" 2>&1 || {
  tail -n 60 "$tmp/log"
  exit 1
}
tail -n 12 "$tmp/log"
