#!/bin/sh
# The command line, without a model: what is refused, with which status, in which words, and that nothing is written.
#   args.sh GENVID SOURCE
set -eu
genvid=$1
. "$2/tests/cli/lib.sh"
unset GENVID_MODEL

# nothing, and nearly something
expect 64 'no command.*genvid help'
expect 64 'unknown command "vide"; did you mean video\?' vide
expect 64 'unknown command "frobnicate"' frobnicate
expect 64 'unknown option --step; did you mean --steps\?' video --step 3 x
expect 64 'unknown option --seeed; did you mean --seed\?' video --seeed=3 x
expect 64 'unknown option --frobnicate$|unknown option --frobnicate ' video --frobnicate x
expect 64 'unknown option -Z' video -Z x
expect 64 'unknown option --steps' info --steps 3
expect 64 '"red" is one word too many; put the prompt into quotes' video a red fox
expect 64 'no prompt' video
expect 64 'not both' video x -f y
expect 64 'not both' video x --frames 5 --seconds 2
expect 64 'not both' video x -q -v
expect 64 'one of --devices' info --devices --formats

# values: the option, what was found, the range
expect 64 '--steps is "0"; expected a whole number from 1 to 1000' video x --steps 0
expect 64 '--steps is "1001"' video x --steps 1001
expect 64 '--steps is "8.5"' video x --steps 8.5
expect 64 '--steps is ""' video x --steps=
expect 64 '--steps is "99999999999999999999"' video x --steps 99999999999999999999
expect 64 '--steps needs a value: N' video x --steps
expect 64 '--seed is "-1"; expected a whole number from 0' video x --seed -1
expect 64 '--seed is "0x10"' video x --seed 0x10
expect 64 '--width is "15"; expected a whole number from 16 to 16384' video x --width 15
expect 64 '--size is "256"; expected WIDTHxHEIGHT' video x --size 256
expect 64 '--size is "256x8"; expected WIDTHxHEIGHT, each from 16' video x --size 256x8
expect 64 '--size is "256x144x3"' video x --size 256x144x3
expect 64 '--fps is "0"; expected a number from 0.1 to 240' video x --fps 0
expect 64 '--fps is "12,5"' video x --fps 12,5
expect 64 '--guidance is "nan"' video x --guidance nan
expect 64 '--guidance is "inf"' video x --guidance inf
expect 64 '--shift is "1e400"' video x --shift 1e400
expect 64 '--threads is "257"; expected a whole number from 1 to 256' video x -t 257
expect 64 '--budget is "5X"; expected bytes' video x --budget 5X
expect 64 '--budget is "12"; expected bytes' video x --budget 12
expect 64 '--max-vram is "12"; expected bytes' video x --max-vram 12
expect 64 '--option is "crf"; expected NAME=VALUE' video x --option crf
expect 64 '--option is "=3"' video x --option =3
expect 64 '--quiet takes no value' video x --quiet=1

# files: before anything loads
expect 66 'prompt file "absent.txt" cannot be read' video -f absent.txt
expect 66 '"." cannot be read' video -f .
expect 66 '--image "absent.png" cannot be read' video x --image absent.png
expect 66 '--last-image "absent.png" cannot be read' video x --last-image absent.png
expect 66 'is a folder' video x --image .
expect 64 '"clip.avi"|"avi"' video x -o clip.avi
expect 64 'has no extension' video x -o clip
expect 64 'stdout takes --format' video x -o -
expect 64 'stdout takes --format' video x -o - --format png
expect 74 'cannot write into the folder "absent"' video x -o absent/clip.y4m
expect 74 '--report' video x -o clip.y4m --report absent/r.json
expect 69 'the model "absent" cannot be read' video x --model absent
expect 69 'the model "absent" cannot be read' info absent
hold "a refused command writes nothing" empty_folder

printf 'a\0b' > zero.txt
expect 65 'holds a zero byte' video -f zero.txt
stdin=zero.txt
expect 65 'prompt file "-" holds a zero byte' video -f -
expect 65 'prompt file "-" holds a zero byte' video -
unset stdin
: > clip.y4m
expect 74 '"clip.y4m" exists; -y replaces it' video x -o clip.y4m --model absent
mkdir folder.y4m
expect 64 'is a folder' video x -o folder.y4m
mkdir f && : > f/0000.png
expect 74 '"f/0000.png" exists' video x -o f/%04d.png --model absent
expect 69 'absent' video x -o clip.y4m -y --model absent
GENVID_MODEL=gone
export GENVID_MODEL
expect 69 '"gone" \(from GENVID_MODEL\)' video x -o new.y4m
unset GENVID_MODEL

# help and the rest
expect 0 '' --version
hold "--version says the name" grep -qE '^genvid [0-9]+\.[0-9]+\.[0-9]+$' .out
expect 0 '' help
expect 0 '' --help
expect 0 '' help video
hold "help names every range" grep -q '1 to 1000' .out
cp .out help.txt
expect 0 '' video --help
hold "help video and video --help are one text" cmp -s .out help.txt
for subject in info bench help output exit files session config steps; do
  expect 0 '' help $subject
  hold "help $subject says something" test -s .out
done
for option in steps --steps; do
  expect 0 '' help $option
  hold "help $option is of the option" grep -q 'steps N .*denoising steps' .out
done
expect 0 '' help -i
hold "a letter is its option's" grep -q -- '-i, --image' .out
expect 64 'no help on "--stpes"' help --stpes
expect 64 'no help on "vidoe"; did you mean video' help vidoe
expect 74 '"help.txt" is no folder' video x -o help.txt/a.y4m
expect 0 '' help --man
hold "the manual page is troff" grep -q '^.TH GENVID 1' .out
sed -n 's/^ .*--\([a-z-]*\).*/\1/p' help.txt | sort -u | while read -r name; do
  grep -q "$(printf '%s' "$name" | sed 's/-/\\\\-/g')" .out || echo "$name"
done > missing
hold "the manual page has every option of help" test ! -s missing
expect 0 '' help steps
hold "an option's help is found by its name" grep -q -e '--steps N' .out

# a job in a file: the flags' names, and flags over it
cat > job.json << END
{ "prompt": "a fox", "steps": 4, "size": "64x48", "guidance": 1.5, "seconds": 2, "quiet": true, "option": { "schedule": "wan-unipc" } }
END
expect 0 '' video --config job.json --print-config
hold "a config is printed as it was read" json_has prompt '"afox"' < .out
hold "numbers are numbers" json_has steps 4 < .out
hold "a size is width and height" json_has height 48 < .out
cp .out again.json
expect 0 '' video --config again.json --print-config
hold "what is printed reads the same" cmp -s .out again.json
expect 0 '' video "a boat" --config job.json --steps 9 --frames 5 -v --print-config
hold "flags win" json_has steps 9 < .out
hold "the prompt too" json_has prompt '"aboat"' < .out
hold "frames drive out seconds" sh -c '! grep -q seconds .out'
hold "and loud drives out quiet" sh -c '! grep -q quiet .out'
expect 0 '' caption a.png b.png --tokens 5 --print-config
tr -d ' \n' < .out > flat.json
hold "files of a caption are a list" grep -q '"files":\["a.png","b.png"\]' flat.json
echo '{"stesp": 4}' > bad.json
expect 64 'bad.json: "stesp" is no option of genvid video; did you mean "steps"' video --config bad.json
echo '{"steps": 0}' > bad.json
expect 64 'bad.json: --steps is "0"; expected a whole number from 1 to 1000' video --config bad.json
echo '{"quiet": 1}' > bad.json
expect 64 'bad.json: "quiet" is neither true nor false' video --config bad.json
echo '{"steps": [4]}' > bad.json
expect 64 'bad.json: "steps" is neither a number nor a text' video --config bad.json
echo '{"prompt": 7}' > bad.json
expect 64 'bad.json: "prompt" is no text' video --config bad.json
echo '{"steps": 4' > bad.json
expect 64 'bad.json: line 2, column' video --config bad.json
echo '[]' > bad.json
expect 64 'bad.json: is no JSON object' video --config bad.json
expect 64 'absent.json' video --config absent.json

# completions: in the shells that are here
expect 64 'bash or zsh' completions fish
for shell in bash zsh; do
  expect 0 '' completions $shell
  cp .out completions.$shell
  if command -v $shell > /dev/null; then
    hold "$shell reads its completions" $shell -n completions.$shell
  fi
done
if command -v bash > /dev/null; then
  complete_with() { bash -c '. ./completions.bash; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _genvid; echo "${COMPREPLY[*]}"' x "$@"; }
  hold "bash completes a command" test "$(complete_with x genvid vi)" = video
  hold "an option" test "$(complete_with x genvid video --guid)" = --guidance
  hold "a value" test "$(complete_with x genvid video --solver eu)" = euler
  hold "a file" test "$(complete_with x genvid video --image job.)" = job.json
  hold "nothing for a number" test -z "$(complete_with x genvid video --steps '')"
fi
expect 0 '' info --formats
hold "formats come one a line, with a tab" grep -q '^y4m	' .out
expect 0 '' info --formats --json
hold "formats as JSON" grep -q '"extension"' .out
expect 0 '' info --devices
hold "there is a CPU" grep -q '^cpu	' .out
if [ -w /dev/full ]; then
  "$genvid" info --devices > /dev/full 2> .err && bad "a full disk behind stdout passes unseen" || true
fi
finish
