#!/bin/sh
# The command with a model of random weights: what it makes, what it says, what it leaves behind when it is stopped.
#   render.sh GENVID SOURCE MODEL
set -eu
genvid=$1
. "$2/tests/cli/lib.sh"
GENVID_MODEL=$3
export GENVID_MODEL
# A frame's data may end in any byte, so its mark need not begin a line.
frames_of() { grep -ao FRAME "$1" | wc -l; }
small="--size 64x48 --frames 5 --steps 2 --seed 7"

# shellcheck disable=SC2086 # $small is words, here and below
expect 0 '^seed 7$' video "A red fox, in snow" $small -o a.y4m
hold "stdout is the file's name alone" test "$(cat .out)" = a.y4m
hold "the size is in the file" grep -aq '^YUV4MPEG2 W64 H48 ' a.y4m
hold "five frames" test "$(frames_of a.y4m)" = 5
hold "the result is told" grep -qE 'a.y4m: 64x48, 5 frames.*seed 7' .err
hold "seconds per stage are told" grep -qE 'denoise [0-9.]+ s.*decode [0-9.]+ s' .err

expect 0 '' video "A red fox, in snow" $small -t 1 -o b.y4m
hold "one thread makes the same frames" cmp -s a.y4m b.y4m
expect 0 '' video "A red fox, in snow" $small -t 3 -o b.y4m -y
hold "three threads make the same frames" cmp -s a.y4m b.y4m
expect 0 '' video "A red fox, in snow" $small --seed 8 -o b.y4m -y
hold "another seed makes others" sh -c '! cmp -s a.y4m b.y4m'
expect 0 '^seed 7$' video "A red fox, in snow" $small -o - --format y4m
hold "stdout carries the same frames" cmp -s a.y4m .out
printf 'A red fox, in snow\n' > prompt.txt
stdin=prompt.txt
expect 0 '' video -f - $small -o b.y4m -yq
unset stdin
hold "the prompt from stdin is the prompt" cmp -s a.y4m b.y4m
hold "--quiet says the seed, and warns" test "$(grep -v '^genvid: warning: ' .err)" = "seed 7"
rm -f -- *.y4m prompt.txt

expect 0 '' video "A red fox, in snow" $small --format y4m
expect 0 '' video "A red fox, in snow" $small --format y4m
hold "names come from prompt and seed, and are new" test -s a-red-fox-in-snow-7.y4m -a -s a-red-fox-in-snow-7-2.y4m
rm -f -- *.y4m

expect 0 '"event":"start".*"seed":7' video x $small -o j.y4m --json --report r.json
hold "the result is one line of JSON" test "$(wc -l < .out)" = 1
hold "it has the seed" json_has seed 7 < .out
hold "it has the output" json_has output '"j.y4m"' < .out
hold "progress is JSON" grep -q '"event":"progress"' .err
hold "stderr is nothing but JSON" sh -c '! grep -v "^{.*}$" .err'
hold "the report has stages" grep -q '"stages"' r.json
rm -f j.y4m r.json

expect 0 '' video x $small --dry-run
hold "a dry run tells size and memory" grep -q '64x48, 5 frames' .out
expect 0 '' video x $small --dry-run --json
hold "a dry run as JSON" json_has tokens '[0-9]+' < .out
expect 0 '^genvid: .*frames' video x $small --frames 6 -o b.y4m
hold "six frames became five" test "$(frames_of b.y4m)" = 5
rm -f b.y4m
expect 0 '' video x $small --frames 1 -o still.png
hold "one frame is one picture" test -s still.png
expect 0 '' video x $small --image still.png -o 'i%02d.png'
hold "five pictures" test "$(find . -name 'i0?.png' | wc -l)" = 5
rm -f -- *.png

# sound of another clip: its packets go along where the container holds them
if "$genvid" info --formats | cut -f1 | grep -qx mkv; then
  sound=$2/tests/golden/media/sound.mkv
  expect 0 '' video x $small --audio "$sound" -o s.mkv
  expect 0 '' probe s.mkv --json
  hold "the sound went along" json_has sound '"pcm_u8"' < .out
  expect 0 '' rerun s.mkv
  hold "and is no part of what makes the frames" grep -q '^the same frames' .out
  expect 0 '' rerun s.mkv --audio "$sound" -o again.mkv
  hold "rerun takes it too" sh -c '"$1" probe again.mkv | grep -q pcm_u8' sh "$genvid"
  expect 0 'does not hold sound in pcm_u8.*mkv holds all' video x $small --audio "$sound" -o s.mp4
  expect 0 'y4m holds no sound' video x $small --audio "$sound" -o s.y4m
  expect 66 '^genvid: --audio "absent.mkv" cannot be read' video x $small --audio absent.mkv -o t.mkv
  expect 66 'is a folder; expected a clip' video x $small --audio . -o t.mkv
  echo 'no clip' > not.mkv
  expect 65 'not.mkv is not a clip whose sound can be read' video x $small --audio not.mkv -o t.mkv
  rm -f -- *.mkv *.mp4 *.y4m
fi

# previews: into a file, which is a picture; not into what is no terminal
expect 0 '' video x $small --preview-every 1 --preview-file look.png -o b.y4m
hold "a preview was written" test -s look.png
expect 0 '' video x $small --image look.png -o c.y4m
expect 0 'no previews' video x $small --preview-every 1 -o d.y4m
hold "no picture in a log" sh -c '! grep -q "\[38;" .err'
hold "previews change no frame" cmp -s b.y4m d.y4m
expect 74 'preview-file' video x $small --preview-file absent/look.png -o e.y4m
rm -f -- *.y4m look.png

expect 64 'nonsense' video x $small --option nonsense=1 -o b.y4m
expect 64 'solver' video x $small --solver nonsense -o b.y4m
expect 64 'nonsense' video x $small --precision nonsense -o b.y4m
expect 64 'nonsense' video x $small --cpu-level nonsense -o b.y4m
expect 71 '' video x $small --budget 1M -o b.y4m
expect 71 '' video x $small --max-vram 1M -o b.y4m
hold "a refused render leaves nothing" empty_folder

# stopped by a signal: within a few seconds, 130, nothing left
for signal in INT TERM; do
  count=$((count + 1))
  rm -f .err # or the last one's words are taken for this one's
  "$genvid" video x --size 512x288 --frames 33 --steps 200 -o big.y4m > .out 2> .err &
  pid=$!
  tries=0
  until grep -qs denoise .err || [ $tries = 600 ]; do sleep 0.1; tries=$((tries + 1)); done
  kill -$signal $pid
  got=0
  wait $pid || got=$?
  [ "$got" = 130 ] || bad "SIG$signal: exit status $got, expected 130"
  hold "SIG$signal is told" grep -q cancelled .err
  hold "SIG$signal leaves nothing" empty_folder
done

# a reader that goes away, and a disk that is full
{ got=0; "$genvid" video x $small -o - --format y4m 2> .err || got=$?; echo $got > .rc; } | true
hold "a closed pipe is 74" test "$(cat .rc)" = 74
rm -f .rc
count=$((count + 1))
got=0
(ulimit -f 4; exec "$genvid" video x $small -o full.y4m > /dev/null 2> .err) || got=$?
[ "$got" = 74 ] || bad "a file that may not grow: exit status $got, expected 74"
hold "a full disk leaves nothing" empty_folder

expect 0 '' info "$GENVID_MODEL"
hold "info names the folder" grep -q "^model $GENVID_MODEL" .out
expect 0 '' info --json
hold "info as JSON" json_has model < .out
expect 0 '' info --words
hold "the words of the model" grep -qx fox .out
expect 0 '' info --options
expect 0 '' bench --seconds 0.2 --json
hold "bench as JSON" grep -q '[0-9]' .out
expect 0 '' bench attention --seconds 0.1
hold "masks x lengths as a table" grep -qE '^dense +4096 +100.0%' .out
expect 64 'found "speed"' bench speed

expect 0 '' info --shortcuts
hold "policies with their ranges" grep -qE "^--attention radial.decay.0 to 8.0.2" .out
hold "caches with their ranges" grep -qE "^--cache easycache.thr.0 to 10" .out
expect 0 '' video x $small --attention radial -o r.y4m --verify --json --report r.json
hold "the receipt is in the report" grep -q '"receipt"' r.json
hold "and so is the comparison" grep -q '"psnr"' r.json
expect 64 'decay=9' video x $small --attention radial:decay=9 -o r.y4m -y
expect 64 'there are: magcache' video x $small --cache nothing -o r.y4m -y
expect 64 'genvid calibrate' video x $small --attention calibrated -o r.y4m -y
cp -r "$GENVID_MODEL" mine
expect 0 'of the blocks are read' calibrate mine "a red fox" --size 64x48 --frames 5 --steps 2
hold "the calibration lies beside the model" test "$(cat .out)" = mine/genvid.calibration.safetensors
expect 0 'receipt: ' video x -m mine $small --attention calibrated -o r.y4m -y
hold "nothing half-written" test ! -e mine/genvid.calibration.safetensors.part
finish
