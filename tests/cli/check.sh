#!/bin/sh
# --check with the models that ship: what was asked is read back, told and kept in the recipe; no frame and no exit status depends on it.
#   check.sh GENVID SOURCE CAPTION_MODEL
set -eu
genvid=$1 other=$3
. "$2/tests/cli/lib.sh"
GENVID_MODEL=$2/assets/models
export GENVID_MODEL
asked="a purple dragon walks to the right in the snow"
if ! "$genvid" info --formats | grep -q mp4; then
  expect 64 'this build lacks libav' video "$asked" --check -o a.y4m
  finish
  exit
fi

expect 0 '^check: 4 of 4 as asked: actor dragon, colour purple, motion right, scene snow$' video "$asked" -s 0 --check -o a.mp4
hold "the caption is told" grep -q '^check: the captioner says "A purple dragon walks to the right in the snow' .err
expect 0 '' probe a.mp4 --json
hold "the recipe has it" json_has agree 4 < .out
hold "and its words" json_has text '"Apurpledragonwalks' < .out
expect 0 '' rerun a.mp4
hold "it is no part of what makes the frames" grep -q '^the same frames' .out

# other words for the same, silence that means something, and a captioner that cannot read: the exit status stays
expect 0 '^check: 5 of 5 as asked' video "a violet dragon strolls to the right in a winter landscape, by daylight" -s 0 --check -o b.mkv
expect 0 '^check: 0 of 4 as asked; not actor: asked dragon, read nothing of it; colour' \
  video "$asked" -s 0 --check-model "$other" -o c.mp4
hold "the clip is there" test -s c.mp4
expect 0 'check: no words to compare by' video "my grandmother likes it" -s 0 --check -o d.mp4
expect 0 '' video "$asked" -s 0 --check -o e.y4m --json --report r.json
hold "the result has it" json_has check < .out
hold "the report too" json_has agree 4 < r.json
hold "stderr is nothing but JSON" sh -c '! grep -v "^{.*}$" .err'
expect 0 '' video "$asked" -s 0 -o f.y4m
hold "no frame depends on it" cmp -s e.y4m f.y4m
expect 0 'actor star, scene space' video "a star in space" -s 0 --frames 1 --check -o still.png

# what cannot be read back, and what reads no clips, is told before anything is made
rm -f -- *.mp4 *.mkv *.y4m *.png r.json
expect 64 'stdout is none that can be read' video "$asked" --check -o - --format y4m
expect 64 'f%d.png is none that can be read' video "$asked" --check -o f%d.png
expect 64 'a.rgb is none that can be read' video "$asked" --check -o a.rgb
expect 69 'absent' video "$asked" --check-model absent -o a.mp4
mkdir family
cp -r "$GENVID_MODEL"/[!c]* family
expect 69 'no captioner: .*give one with --check-model DIR' video "$asked" --check -m family -o a.mp4
rm -r family
hold "and leaves nothing" empty_folder
finish
