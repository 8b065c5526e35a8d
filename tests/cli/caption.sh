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
run="--model $model --precision f32 --tokens 48"

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
expect 0 '12 tokens of picture, 48 of text' caption a.png $run --question "$question"
cp .out one.txt
hold 'no control characters' sh -c '! LC_ALL=C grep -q "[[:cntrl:]]" one.txt'

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

# refused
expect 64 'no picture' caption
expect 66 '"absent.png" cannot be read' caption a.png absent.png --model "$model"
expect 66 'is a folder' caption . --model "$model"
expect 64 '--tokens is "0"' caption a.png --tokens 0
expect 64 'max_tokens 5000.*4096' caption a.png --model "$model" --tokens 5000
expect 69 'absent' caption a.png --model absent
expect 64 'makes captions' video x --model "$model" -o x.y4m
expect 0 '' info "$model"
hold 'info names the family' grep -q 'qwen2.5-vl' .out
expect 0 '' help caption
finish
