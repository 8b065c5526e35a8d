#!/bin/sh
# Broken models and pictures: one clear sentence that names the file, the right exit status, nothing written.
#   bad.sh GENVID SOURCE MODEL
set -eu
genvid=$1 good=$3
. "$2/tests/cli/lib.sh"
small="--size 64x48 --frames 5 --steps 1 --seed 7 -o out.y4m"

# A copy of the good model whose files are links, so that one can be replaced.
fresh()
{
  rm -rf m
  mkdir m
  (cd "$good" && find . -type d) | while read -r d; do mkdir -p "m/$d"; done
  (cd "$good" && find . -type f) | while read -r f; do ln -s "$good/$f" "m/$f"; done
}
# broken PATTERN: after one file of m/ was changed
broken()
{
  # shellcheck disable=SC2086 # words
  expect 69 "$1" video x --model m $small
  count=$((count + 1))
  [ "$(wc -l < .err)" -le 3 ] || bad "more than a sentence for $1"
  [ ! -e out.y4m ] || bad "wrote out.y4m although $1"
  fresh
}
# change FILE SED: the file with an edit, as a file of its own
change()
{
  sed "$2" "$good/$1" > .edit
  rm -f "m/$1"
  mv .edit "m/$1"
}
weights=transformer/diffusion_pytorch_model.safetensors
[ -e "$good/$weights" ] || weights=$(cd "$good" && find transformer -name '*.safetensors' | sort | head -n 1)
fresh

rm m/model_index.json;                                     broken 'model_index.json'
rm m/model_index.json; echo '{"a": [1,' > m/model_index.json; broken 'model_index.json'
rm m/model_index.json; : > m/model_index.json;             broken 'model_index.json'
change model_index.json 's/WanPipeline/FluxPipeline/';     broken 'FluxPipeline'
rm m/transformer/config.json;                              broken 'transformer'
rm m/vae/config.json;                                      broken 'vae'
rm m/text_encoder/config.json;                             broken 'text_encoder'
rm -r m/tokenizer;                                         broken 'tokenizer'
change transformer/config.json 's/"num_layers": *[0-9]*/"num_layers": 100000000/';  broken 'num_layers'
change transformer/config.json 's/"num_layers": *[0-9]*/"num_layers": -1/';         broken 'num_layers'
change transformer/config.json 's/"num_layers": *[0-9]*/"num_layers": "twelve"/';   broken 'num_layers'
change transformer/config.json 's/"num_layers": *[0-9]*/"num_layers": 99/';         broken 'blocks\.'
change transformer/config.json 's/"ffn_dim": *[0-9]*/"ffn_dim": 64/';               broken 'ffn'
change vae/config.json 's/"z_dim": *[0-9]*/"z_dim": 48/';                           broken 'vae|z_dim'
rm "m/$weights";                                           broken 'transformer'
rm "m/$weights"; : > "m/$weights";                         broken 'safetensors'
rm "m/$weights"; head -c 5 "$good/$weights" > "m/$weights"; broken 'safetensors'
rm "m/$weights"; head -c 100000 "$good/$weights" > "m/$weights"; broken 'safetensors'
rm "m/$weights"; printf '\377\377\377\377\377\377\377\177{}' > "m/$weights"; broken 'safetensors'
rm "m/$weights"; printf '\002\000\000\000\000\000\000\000{}' > "m/$weights"; broken 'blocks|condition_embedder|patch_embedding|missing|no tensor'
rm "m/$weights"; printf '\002\000\000\000\000\000\000\000[]' > "m/$weights"; broken 'safetensors'
rm m/tokenizer/tokenizer.json; echo '{}' > m/tokenizer/tokenizer.json; broken 'tokenizer'
rm m/tokenizer/tokenizer.json; echo '{"model": {"type": "Unigram", "vocab": 3}}' > m/tokenizer/tokenizer.json; broken 'tokenizer'
rm m/genvid.json; echo '{"steps": 100000000}' > m/genvid.json;  broken 'genvid.json.*steps|steps.*genvid.json'
rm m/genvid.json; echo '{"steps": ' > m/genvid.json;       broken 'genvid.json'

# picture STATUS PATTERN: of p.png
picture()
{
  expect "$1" "$2" video x --model m --image p.png $small
  count=$((count + 1))
  [ ! -e out.y4m ] || bad "wrote out.y4m although $2"
}
: > p.png;                                                 picture 65 'p\.png'
echo 'this is not a picture' > p.png;                      picture 65 'p\.png'
printf '\211PNG\r\n\032\n' > p.png;                        picture 65 'p\.png'
printf '\377\330\377\340\000\020JFIF' > p.png;             picture 65 'p\.png'
printf '#EXTM3U\n#EXTINF:1,\n/etc/passwd\n' > p.png;       picture 65 'p\.png'
printf 'ffconcat version 1.0\nfile /etc/passwd\n' > p.png; picture 65 'p\.png'
# a bomb: 60000x60000, a valid header and nothing behind it
printf '\211PNG\r\n\032\n\000\000\000\rIHDR\000\000\352\140\000\000\352\140\010\002\000\000\000\264\252\054\305' > p.png
picture 65 'p\.png'
rm p.png

chmod 000 m 2> /dev/null || true
if [ "$(id -u)" != 0 ]; then
  expect 69 'm' video x --model m $small
fi
chmod 755 m
finish
