#!/bin/sh
# genvid beside stable-diffusion.cpp on the CPU: one denoising step and one VAE decode, the same random weights of Wan2.1 T2V 1.3B's
# shape (bench_peers.py makes them), the same machine, turn by turn. Prints every turn, then medians, spreads and ratios.
#
#   bench_peers.sh SD_CLI BENCH_MODELS DIR [TURNS [WIDTHxHEIGHTxFRAMES]]
#
#   SD_CLI        sd-cli of github.com/leejet/stable-diffusion.cpp with its ggml, built outside of this tree:
#                 cmake -S src -B build -DCMAKE_BUILD_TYPE=Release -DSD_WEBP=OFF -DSD_WEBM=OFF && cmake --build build --target sd-cli
#   BENCH_MODELS  build/tests/bench_models
#   DIR           made by: python tests/bench_peers.py DIR (torch and diffusers; 6.5 GB on the disk)
#   size          multiples of 16 and 4n+1 frames; 128x128x17 (320 tokens) if none is given
#
# Without guidance. A turn of the peer is the second and third of three steps (the first one reads its weights) and a decode less
# the reading of its weights, as its log says; ours is three forwards and three decodes. bf16 weights on both sides; the peer
# computes in f32 where it has no bf16 kernel. Its threads spin while they wait: on a machine that others use too it loses far
# more than its share, so such a run says nothing about it.
set -eu
[ $# -ge 3 ] || { sed -n '2,19p' "$0"; exit 64; }
sd=$1 bench=$2 dir=$3 turns=${4:-5} size=${5:-128x128x17} threads=$(nproc)
width=${size%%x*} frames=${size##*x} height=${size#*x}
height=${height%x*}
grid=$(((frames + 3) / 4))x$((height / 8))x$((width / 8))
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
echo "load average $(cut -d' ' -f1-3 /proc/loadavg) on $threads cores; ${width}x$height, $frames frames"
turn=0
while [ "$turn" -lt "$turns" ]; do
  turn=$((turn + 1))
  "$sd" -M vid_gen --diffusion-model "$dir/sd-dit.safetensors" --vae "$dir/sd-vae.safetensors" --t5xxl "$dir/sd-umt5.gguf" \
    -p "a red fox" --cfg-scale 1 --sampling-method euler --steps 3 -W "$width" -H "$height" --video-frames "$frames" -t "$threads" \
    -o "$out/clip.avi" -v > "$out/log" 2>&1 || { tail -n 3 "$out/log"; exit 1; }
  { tr '\r' '\n' < "$out/log" | awk '
      match($0, /[23]\/3 - [0-9.]+(s\/it|it\/s)/) {
        split(substr($0, RSTART + 6, RLENGTH - 6), part, /[a-z]/)
        print "peer step", substr($0, RSTART, RLENGTH) ~ /s\/it/ ? part[1] : 1 / part[1] }
      /decode_video_outputs latent/ { decoding = 1 }
      decoding && /loading tensors completed, taking/ { sub(/.*taking /, ""); read += $0 + 0 }
      /decode_first_stage completed, taking/ { sub(/.*taking /, ""); print "peer decode", $0 - read }'
    for round in 1 2 3; do
      "$bench" vae "$dir/vae" 1 "$grid" | sed -n 's/^vae .*: \([0-9.]*\) s (.*/genvid decode \1/p'
    done
    "$bench" dit "$dir/dit" 3 "$grid" | sed -n 's/.* tokens: \([0-9.]*\) s (\([0-9.]*\) to \([0-9.]*\)).*/\1 \2 \3/p' |
      tr ' ' '\n' | sed 's/^/genvid step /'
  } | tee -a "$out/all" | sed "s/^/turn $turn  /"
done
for what in step decode; do
  for who in peer genvid; do
    sed -n "s/^$who $what //p" "$out/all" | sort -n | awk -v who="$who $what" '
      { t[NR] = $1 }
      END { m = NR % 2 ? t[(NR + 1) / 2] : (t[NR / 2] + t[NR / 2 + 1]) / 2; printf "%s %.3f %.3f %.3f %d\n", who, m, t[1], t[NR], NR }'
  done
done | awk '
  { printf "%s %s: median %.3f s (%.3f to %.3f), %d times\n", $1, $2, $3, $4, $5, $6
    if ($1 == "peer") { m = $3; best = $4 } else printf "%s: %.2fx of the peer, %.2fx of its best\n", $2, $3 / m, $3 / best }'
