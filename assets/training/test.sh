#!/bin/sh
# Smoke run of every trainer on the CPU at 32 to 64 px over the mini pack: two or three steps each, then export and the checks against diffusers.
# About two minutes of one core. Outside `make test`, because it needs PyTorch. PYTHON names the interpreter; the checks against diffusers are skipped, and
# said, where diffusers or transformers are missing.
set -u
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
export OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 PYTHONWARNINGS=ignore
has() { "$python" -c "import $1" 2>/dev/null; }
if ! has torch || ! has tokenizers || ! has safetensors || ! has PIL; then
  echo "test-training: skipped, $python lacks torch, tokenizers, safetensors or pillow"
  exit 0
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
passed=0 failed=0
try() {
  name=$1; shift
  if timeout 300 "$python" "$@" >"$out/log" 2>&1; then
    passed=$((passed + 1)); echo "ok   $name"
  else
    failed=$((failed + 1)); echo "FAIL $name"; tail -15 "$out/log"
  fi
}
cd "$here" || exit 1
pack=$here/mini
small="--pack $pack --out $out/run --device cpu --variants 1 --workers 1 --every 1"
try "a contact sheet is drawn" sheet.py --pack "$pack" --out "$out/sheet.jpg" --rows 2 --frames 5 --width 48 --height 48
try "the VAE trains and exports" train_vae.py $small --minutes 3 --steps 3 --size 32 --frames 9 --batch 4 --short 5x32x4 --judge 2 --judge-size 32 --export "$out/models"
try "the VAE resumes" train_vae.py $small --minutes 3 --steps 1 --size 32 --frames 9 --batch 4 --short 5x32x4 --judge 1 --judge-size 32 --resume
try "the probe trains" train_probe.py $small --minutes 3 --steps 2 --size 64 --batch 2 --judge 2
try "the DiT and the text encoder train and are distilled" train_dit.py $small --vae "$out/run/vae.pt" --stats "$out/run/vae.json" --minutes 3 --distil 1 --steps 6 --size 32 --frames 9 --batch 2 --ring 32 --fill 8 --chunk 4 --long 17x64x2 --long-every 2 --long-ring 4 --stream 41 --stream-ring 8 --causal 0.7 --images 0 --images-later 0.4 --export "$out/models"
try "the evaluation runs" evaluate.py --pack "$pack" --run "$out/run" --tier 132 --clips 2 --recoloured 2 --size 32 --frames 9 --variants 1 --device cpu
try "captions can be read back" caption_text.py
try "the captioner trains, is judged and exports" train_captioner.py --pack "$pack" --out "$out/captioner" --export "$out/captioner/model" --device cpu --minutes 3 --steps 8 --batch 2 --ring 4 --trips 2 --variants 1 --workers 1 --every 4 --judge 2 --tiny
genvid=${GENVID:-$here/../../build/genvid}
if [ -x "$genvid" ] && command -v ffmpeg >/dev/null; then try "clips are read back through genvid" readback.py --pack "$pack" --genvid "$genvid" --clips 2 --variants 1 --tier 132 --pointing; else echo "skip reading back through genvid: $genvid or ffmpeg is not there"; fi
try "a run is exported" export.py --run "$out/run" --out "$out/models"
cp -r "$here/../models/tokenizer" "$out/models/"
try "the tokenizer keeps the world's words whole" -c "import tokenizer; tokenizer.check('../models/tokenizer')"
if has diffusers && has transformers; then
  try "the parallel VAE equals the chunked one" check_vae.py
  try "diffusers makes the same frames from the export" check_models.py "$out/models"
  try "diffusers loads what ships" check_models.py
else
  echo "skip the checks against diffusers: diffusers or transformers missing"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
