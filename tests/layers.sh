#!/bin/sh
# Who may include whom, checked from the #include lines alone; runs before everything else and takes a second.
#
#   layers.sh [ROOT]       check the tree
#   layers.sh --self-test  show that each rule bites
#
# Down, never sideways: a file may include its own room and lower ranks; two rooms of one rank never meet. Outside libraries
# have one door each, so that a build without them leaves out one file.
set -eu

check()
{
  cd "$1"
  find core io attention vision diffusion pipelines cli -name '*.[ch]' -o -name '*.cu' -o -name '*.cuh' 2>/dev/null |
    sort | xargs awk '
    BEGIN {
      rank["core"] = 2; rank["io"] = rank["attention"] = 3; rank["vision"] = rank["diffusion"] = 4; rank["pipelines"] = 5
    }
    function bad(why) { printf "%s:%d: %s: %s\n", FILENAME, FNR, $0, why; failed = 1 }
    # door(header, files): header may be included by files that match only
    function door(header, files) { if (path ~ header && FILENAME !~ files) bad("only " files) }

    /^[ \t]*#[ \t]*include[ \t]*[<"]/ {
      split(FILENAME, at, "/"); room = at[1]
      path = $0; sub(/^[^<"]*[<"]/, "", path); sub(/[>"].*$/, "", path)
      quoted = $0 ~ /include[ \t]*"/
      split(path, to, "/"); target = to[1]

      door("^((oneapi/)?dnnl|omp[.]h)", "^tests/") # a yardstick: opcheck --bench alone
      door("^lib(av|sw)[a-z]*/", "^io/libav[a-z_]*[.][ch]$")
      door("^stb_", "^io/")
      door("^turbojpeg", "^io/")
      door("^utf8proc", "^io/")
      door("^pcre2", "^io/")
      door("^(cublas|cudnn)", "^core/cuda/")
      if (room == "core" || room == "attention") door("^jansson", "^(io|diffusion|vision|pipelines|cli)/")

      if (!quoted) next
      if (path == "genvid.h") next
      if (room == "cli") {
        if (path ~ /\// ) bad("the command sees include/genvid.h and its own files only")
        next
      }
      if (target == "cli" || target == "tests") { bad("nothing includes " target); next }
      if (!(target in rank)) { bad("write the path from the root, room first"); next }
      if (room != target && rank[target] >= rank[room]) bad(room " (rank " rank[room] ") may not see " target " (rank " rank[target] ")")

      if (path ~ /^core\/cpu\//  && FILENAME !~ /^(core|attention)\/cpu\// ) backend()
      if (path ~ /^core\/cuda\// && FILENAME !~ /^(core|attention)\/cuda\//) backend()
      if (path ~ /^attention\/(cpu|cuda)\// && FILENAME !~ /^attention\//) backend()
    }
    # device.c and attention.c hold the lists of what exists; each names the one header that opens a device
    function backend() {
      if (FILENAME == "core/device.c" && path ~ /\/device_[a-z]+[.]h$/) return
      bad("a backend header is for kernels of the same device; include core/ops.h")
    }
    END { exit failed }'
}

# Makes a tree of one file with one line; the check has to refuse it (or take it, where the first word is ok).
try()
{
  rm -rf "$tmp/t"
  for room in core/cpu core/cuda io attention/cpu vision diffusion pipelines cli; do
    mkdir -p "$tmp/t/$room"
  done
  printf '#include %s\n' "$3" > "$tmp/t/$2"
  if (check "$tmp/t") > "$tmp/out"; then got=ok; else got=refused; fi
  if [ "$got" != "$1" ]; then
    echo "layers.sh --self-test: $2 with $3 was $got, expected $1"
    cat "$tmp/out"
    exit 1
  fi
}

self_test()
{
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  try ok      core/run.c            '"core/ops.h"'
  try ok      diffusion/dit.c       '"attention/plan.h"'
  try ok      pipelines/video.c     '"genvid.h"'
  try ok      cli/main.c            '"args.h"'
  try ok      attention/cpu/attn.c  '"core/cpu/features.h"'
  try ok      io/libav_rgb.c        '<libavcodec/avcodec.h>'
  try refused core/run.c            '"io/sink.h"'
  try refused io/sink.c             '"attention/plan.h"'
  try refused diffusion/dit.c       '"vision/vit.h"'
  try refused diffusion/dit.c       '"core/cpu/features.h"'
  try refused pipelines/video.c     '"attention/cpu/attn.h"'
  try refused cli/main.c            '"core/status.h"'
  try refused io/sink.c             '"cli/args.h"'
  try refused io/sink.c             '"frame.h"'
  try refused core/cpu/matmul.c     '<dnnl.h>'
  try refused io/sink.c             '<libavformat/avformat.h>'
  try refused core/run.c            '<jansson.h>'
  echo "layers.sh: every rule bites"
}

if [ "${1-}" = --self-test ]; then
  self_test
else
  if ! (check "${1-$(dirname "$0")/..}"); then
    echo "layers.sh: the lines above look up or sideways; CONTRIBUTING.md says who may include whom" >&2
    exit 1
  fi
  echo "layers.sh: every include looks down"
fi
