#!/bin/sh
# Captions from the command line: the text of the golden, several pictures, JSON, what is refused.
#   caption.sh GENVID SOURCE MODEL
set -eu
genvid=$1 model=$3
. "$2/tests/cli/lib.sh"
golden=$2/tests/golden/qwen2_5_vl_caption
cp "$golden/picture.png" a.png
cp a.png b.png
printf 'not a picture' > c.png
question=$(sed 's/.*"question": "\([^"]*\)".*/\1/' "$golden/request.json")
run="--model $model --precision f32 --tokens 64"

# one picture: the golden's text, as JSON and as it is
# shellcheck disable=SC2086 # words
expect 0 '"stage": *"image"' caption a.png $run --question "$question" --json
hold 'one JSON object' [ "$(wc -l < .out)" = 1 ]
hold 'its event' sh -c 'tr -d " " < .out | grep -q "\"event\":\"result\""'
tr -d '\n' < "$golden/request.json" | sed 's/.*"text": "\(.*\)"}$/\1/' > want.txt
if command -v python3 > /dev/null; then
  hold "the golden's text" python3 -c '
import json, sys
got = json.loads(open(".out", encoding="utf-8").read())
want = json.load(open(sys.argv[1], encoding="utf-8"))
sys.exit(got["text"] != want["text"] or got["report"]["tokens"] != want["new"])' "$golden/request.json"
fi
# shellcheck disable=SC2086
expect 0 '12 tokens of picture, 64 of text' caption a.png $run --question "$question"
cp .out one.txt
hold 'no control characters' sh -c '! LC_ALL=C grep -q "[[:cntrl:]]" one.txt'

# a video model's own captioner; one that has none is named
mkdir -p family
echo '{}' > family/model_index.json
expect 69 'no captioner: "family" is a video model and has none in its folder captioner' caption a.png --model family
GENVID_MODEL=family expect 69 'no captioner: "family" is a video model' caption a.png
cp -r "$model" family/captioner
# shellcheck disable=SC2086
expect 0 '' caption a.png $run --model family --question "$question" -q
hold "the family's captioner" cmp -s .out one.txt

# several: each behind its name, as it would be alone; a bad one is said and the rest go on
# shellcheck disable=SC2086
expect 65 'c.png' caption a.png c.png b.png $run --question "$question" -q
hold 'three lines' [ "$(grep -c '^[abc].png: ' .out)" = 3 ]
hold 'b as a' sh -c 'grep "^b.png: " .out | sed "s/^b.png: //" | cmp -s - one.txt'

# drawn: a seed repeats
# shellcheck disable=SC2086
expect 0 '' caption a.png $run --temperature 2 --seed 5 --top-k 40; cp .out drawn.txt
# shellcheck disable=SC2086
expect 0 '' caption a.png $run --temperature 2 --seed 5 --top-k 40 -t 3
hold 'a seed repeats' cmp -s .out drawn.txt

# a folder: its pictures by name; beside each file what stdout would get; what is there stays
mkdir -p folder
cp a.png folder/1.png; cp a.png folder/2.png; echo text > folder/note.md
# shellcheck disable=SC2086
expect 0 'files 2/2' caption folder $run --question "$question" --sidecar
hold 'a text beside each' cmp -s folder/1.txt one.txt
hold 'and beside the other' cmp -s folder/2.txt one.txt
hold 'nothing else' [ "$(find folder -type f | wc -l)" = 5 ]
echo kept > folder/2.txt; rm folder/1.txt
# shellcheck disable=SC2086
expect 0 'folder/2.txt is there: folder/2.png is passed over' caption folder $run --question "$question" --sidecar
hold 'what was there' [ "$(cat folder/2.txt)" = kept ]
hold 'what was missing' cmp -s folder/1.txt one.txt
# shellcheck disable=SC2086
expect 0 '' caption folder $run --question "$question" --sidecar --overwrite -q
hold 'made anew' cmp -s folder/2.txt one.txt
# shellcheck disable=SC2086
expect 0 '24 tokens of picture' caption a.png b.png $run --together

# fewer picture tokens: keeping all changes nothing, keeping some is said with what it cost
# shellcheck disable=SC2086
expect 0 'pruned: 12 of 12 tokens' caption a.png $run --question "$question" --prune keep=1/1/1,cell=1000
hold 'not a letter' cmp -s .out one.txt
# shellcheck disable=SC2086
expect 0 'receipt: the first token' caption a.png $run --prune 25 --prune-receipt
expect 64 'prune is "20"; 50, 25, 10 or keep' caption a.png --model "$model" --prune 20

# the model's own settings, chosen by pictures
expect 64 'no picture or clip: genvid calibrate MODEL' calibrate family --pruning 25
expect 66 'cannot be read' calibrate family no-such.png --pruning 25
expect 64 'pruning' calibrate family a.png --pruning 100
expect 0 'published settings' calibrate family a.png folder --pruning 25 --trials 3 --precision f32
hold 'they lie in the model' [ "$(cat .out)" = family/captioner/genvid.pruning.json ]
hold 'nothing half-written' [ ! -e family/captioner/genvid.pruning.json.part ]
# shellcheck disable=SC2086
expect 0 'as was chosen for this model' caption a.png $run --model family --prune 25

# fewer keys at most steps: as many as there are change nothing
# shellcheck disable=SC2086
expect 0 'recycled: the keys that were read held 100.00%' caption a.png $run --question "$question" --recycle 4096 --recycle-every 7
hold 'not a letter' cmp -s .out one.txt
# shellcheck disable=SC2086
expect 0 'recycled: the keys' caption a.png $run --recycle 16 --recycle-every 7 --prune 50

# where each word was read: told, and there to look at
# shellcheck disable=SC2086
expect 0 'a.png: where each word was read, in maps/a.png/index.html' caption a.png $run --question "$question" --explain maps
hold 'not a letter' cmp -s .out one.txt
hold 'the page' grep -q '<figure><img src="01-' maps/a.png/index.html
hold 'the numbers' grep -q '"picture_share"' maps/a.png/explain.json

# how pictures are attended to: a factor of one is none; others make another text
# shellcheck disable=SC2086
expect 0 '' caption a.png $run --question "$question" --picture-factor 1 --picture-factor-layers 3
hold 'not a letter' cmp -s .out one.txt
# shellcheck disable=SC2086
expect 0 '' caption a.png $run --question "$question" --picture-factor 8 --picture-factor-layers 3
hold 'another text' sh -c '! cmp -s .out one.txt'
# shellcheck disable=SC2086
expect 0 '' caption a.png $run --question "$question" --paint 5
hold 'another text' sh -c '! cmp -s .out one.txt'
# shellcheck disable=SC2086
expect 64 'paint needs every key' caption a.png $run --paint 0.7 --recycle 16

# what it will take, before it does
expect 0 '' caption a.png --model "$model" --dry-run
hold 'tokens' grep -q 'a.png: 1 frame, 12 tokens of pictures' .out
expect 0 '' caption a.png --model "$model" --dry-run --json
hold 'an estimate' grep -q '"event":"estimate".*"picture_tokens":12' .out

# a clip: sections with their times, where this build reads clips
clip=$2/tests/golden/qwen2_5_vl_clip/clip.mkv
if "$genvid" info --formats | grep -q mp4; then
  cp "$clip" clip.mkv
  # shellcheck disable=SC2086
  expect 0 '' caption clip.mkv --model "$model" --precision f32 --tokens 6 --picture-tokens 16 --srt --section 1.2
  hold 'two cues' [ "$(grep -c ' --> ' .out)" = 2 ]
  hold 'their times' sh -c 'sed -n 2p .out | grep -qx "00:00:00,000 --> 00:00:01,250"'
  # shellcheck disable=SC2086
  expect 0 '' caption clip.mkv --model "$model" --precision f32 --tokens 6 --picture-tokens 16 --vtt --sidecar
  hold 'a head' [ "$(head -1 clip.vtt)" = WEBVTT ]
  hold 'its times' sh -c 'sed -n 3p clip.vtt | grep -qx "00:00:00.000 --> 00:00:02.500"'
  # shellcheck disable=SC2086
  expect 0 '' caption clip.mkv --model "$model" --precision f32 --tokens 6 --picture-tokens 16 --json --section 1.25
  hold 'sections' grep -q '"sections":\[{"start":0.0,"end":1.25' .out
  expect 0 '0.50 to 1.50 s of 2.50 s' caption clip.mkv --model "$model" --tokens 2 --picture-tokens 16 --start 0.5 --end 1.5
  expect 64 'start is 9.00 s, and the clip lasts 2.50 s' caption clip.mkv --model "$model" --start 9
  expect 64 'give one of' caption clip.mkv --model "$model" --srt --vtt
  expect 64 'add --sidecar' caption clip.mkv clip.mkv --model "$model" --srt
  head -c 700 "$clip" > torn.mkv
  expect 65 'torn.mkv is damaged' caption torn.mkv --model "$model"
fi
expect 65 'a.png is a picture' caption a.png --model "$model" --srt

# refused
expect 64 'no picture' caption
expect 66 '"absent.png" cannot be read' caption a.png absent.png --model "$model"
mkdir -p empty
expect 66 'is a folder without pictures' caption empty --model "$model"
expect 64 '--tokens is "0"' caption a.png --tokens 0
expect 64 'max_tokens 5000.*4096' caption a.png --model "$model" --tokens 5000
expect 69 'absent' caption a.png --model absent
expect 64 'makes captions' video x --model "$model" -o x.y4m
expect 0 '' info "$model"
hold 'info names the family' grep -q 'qwen2.5-vl' .out
expect 0 '' help caption
finish
