#!/bin/sh
# genvid beside stable-diffusion.cpp on the CPU: one denoising step and one VAE decode, the same random weights of Wan2.1 T2V 1.3B's
# shape (bench_peers.py makes them), the same machine, turn by turn. Prints every turn; compare minima, and medians where the
# machine is quiet.
#
#   bench_peers.sh SD_CLI BENCH_MODELS DIR [TURNS [THREADS]]
#
#   SD_CLI        sd-cli of github.com/leejet/stable-diffusion.cpp with its ggml, built outside of this tree:
#                 cmake -S src -B build -DCMAKE_BUILD_TYPE=Release -DSD_WEBP=OFF -DSD_WEBM=OFF && cmake --build build --target sd-cli
#   BENCH_MODELS  build/tests/bench_models
#   DIR           made by: python tests/bench_peers.py DIR (torch and diffusers; 6.5 GB on the disk)
#
# A clip of 17 frames of 128x128, 320 tokens, without guidance. A step of the peer is the mean of its three, as it says itself,
# from weights that it has read; ours is the median of three forwards. Decoding is of the same 17 frames. bf16 weights on both
# sides; the peer computes in f32. Its threads spin while they wait: on a machine that others use too it loses far more than
# its share, so such a run says nothing about it.
set -eu
[ $# -ge 3 ] || { sed -n '2,20p' "$0"; exit 64; }
sd=$1 bench=$2 dir=$3 turns=${4:-5} threads=${5:-$(nproc)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
echo "load average $(cut -d' ' -f1-3 /proc/loadavg) on $(nproc) cores, $threads threads"
turn=0
while [ "$turn" -lt "$turns" ]; do
  turn=$((turn + 1))
  "$sd" -M vid_gen --diffusion-model "$dir/sd-dit.safetensors" --vae "$dir/sd-vae.safetensors" --t5xxl "$dir/sd-umt5.gguf" \
    -p "a red fox" --cfg-scale 1 --sampling-method euler --steps 3 -W 128 -H 128 --video-frames 17 -t "$threads" \
    -o "$out/clip.avi" -v > "$out/log" 2>&1 || { tail -n 3 "$out/log"; exit 1; }
  tr '\r' '\n' < "$out/log" > "$out/lines"
  step=$(grep -oE '3/3 - [0-9.]+(s/it|it/s)' "$out/lines" | tail -n 1)
  echo "turn $turn  stable-diffusion.cpp  step ${step#3/3 - }, $(grep -oE 'decode[a-z_ ]*completed, taking [0-9.]+' "$out/lines" |
    tail -n 1)"
  "$bench" dit "$dir/dit" 3 5x16x16 | sed "s/^/turn $turn  genvid  /"
  "$bench" vae "$dir/vae" 1 | sed -n "s/^\(.* 17 frames.*\)/turn $turn  genvid  \1/p"
done
