#!/bin/sh
# A clip says what made it, and is made again: probe and rerun, with changed models and recipes that lie.
#   rerun.sh GENVID SOURCE MODEL
set -eu
genvid=$1 good=$3
. "$2/tests/cli/lib.sh"
GENVID_MODEL=$good
export GENVID_MODEL
small="--size 64x48 --frames 5 --steps 2 --seed 7"
has() { "$genvid" info --formats | cut -f1 | grep -qx "$1"; }

# shellcheck disable=SC2086 # $small is words, here and below
expect 0 '' video "A red fox" $small -o s.png --frames 1
expect 0 '' probe s.png
hold "a picture says its prompt" grep -q 'prompt  *A red fox' .out
hold "and its model" grep -q quick_sha256 .out
hold "but not the hash of all frames" sh -c '! grep -q frames_sha256 .out'
expect 1 '' rerun s.png
hold "which is told" grep -q '^unknown: the file holds no hash' .out

for kind in mp4 mkv webm mov; do
  has $kind || continue
  expect 0 '' video "A red fox" $small -o a.$kind --option hash=full
  expect 0 '' probe a.$kind --json
  hold "$kind has the hash of its frames" json_has frames_sha256 '"[0-9a-f]{64}"' < .out
  hold "$kind has every byte of the model" json_has sha256 '"[0-9a-f]{64}"' < .out
  hold "$kind has its size" json_has width 64 < .out
  expect 0 '' rerun a.$kind
  hold "$kind is made again" grep -q '^the same frames: [0-9a-f]*$' .out
  hold "and nothing is written" test "$(find . -name '[!.]*' ! -name 'keep.*' ! -name s.png | wc -l)" = 1
  expect 0 '' rerun a.$kind -t 1 -q --json
  hold "in JSON too, on one thread" json_has agrees true < .out
  mv a.$kind keep.$kind
done
if has mp4; then
  expect 0 '' rerun keep.mp4 -o again.mp4
  hold "with -o a clip is written" test -s again.mp4
  expect 74 'exists' rerun keep.mp4 -o again.mp4
  expect 1 'the device or the precision is another|processor' rerun keep.mp4 --precision f32
  hold "other frames are told" grep -q '^other frames: ' .out

  cp -r "$good" m
  file=$(find m/transformer -name '*.safetensors' | sort | head -n 1)
  size=$(wc -c < "$file")
  head -c $((size / 2)) /dev/zero | tr '\0' '8' | dd of="$file" bs=4096 seek=$((size / 2 / 4096)) conv=notrunc count=64 2> .dd
  rm .dd
  expect 1 'the model changed: its transformer is not the one' rerun keep.mp4 --model m
  hold "a changed model is the reason" grep -q 'the file says [0-9a-f]*; the model changed' .err
  expect 69 '' rerun keep.mp4 --model /nonexistent
  rm -r m again.mp4

  # Lies of the same length, in place.
  lie() { LC_ALL=C sed "s/$1/$2/" keep.mp4 > lie.mp4; }
  lie '"recipe":1' '"recipe":9'; expect 65 'recipe of version 9' rerun lie.mp4
  lie '"prompt":' '"pr0mpt":';   expect 65 'no recipe' rerun lie.mp4
  lie '"recipe":1' '"recipe"=1'; expect 65 'no recipe' rerun lie.mp4
  lie '"steps":2' '"steps":0';   expect 1 '' rerun lie.mp4
  lie '"width":64' '"width":-4'; expect 65 'width is -1' rerun lie.mp4
  lie '"solver":"unipc"' '"solver":"un!pc"'; expect 65 'solver is "un!pc"' rerun lie.mp4
  lie '"seed":7' '"seed":8';     expect 1 'the file says' rerun lie.mp4
  lie '"frames":5' '"frames":x'; expect 65 'no recipe' rerun lie.mp4
  head -c 700 keep.mp4 > lie.mp4; expect 65 'lie.mp4' rerun lie.mp4
  rm lie.mp4
fi
expect 0 '' video "A red fox" $small -o b.y4m
expect 65 '' rerun b.y4m
expect 66 'cannot read nothing.mp4' probe nothing.mp4
expect 66 '' rerun nothing.mp4
printf 'hello' > words.txt
expect 65 'not a picture or clip' probe words.txt
expect 64 'no file' probe
expect 64 'no file' rerun
expect 64 'one word too many' probe a b
expect 64 'unknown option' probe s.png --seed 3
finish
