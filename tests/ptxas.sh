#!/bin/sh
# What the assembler says of the Hopper kernel: no spills, and products of a warpgroup (wgmma) that run side by side. Either
# would halve its speed and still give right results, so nothing else would notice.
#
#   ptxas.sh NVCC ROOT
set -eu

out=$("$1" -std=c++17 -O3 -I"$2" -I"$2/include" -gencode arch=compute_90a,code=sm_90a -Xptxas -v -cubin -o /dev/null \
  "$2/attention/cuda/attn_sm90.cu" 2>&1) || { echo "$out"; exit 1; }
# C7508: setmaxnreg ignored; C7510 to C7519: products waited for one by one, or waits that were not written
if echo "$out" | grep -E '\(C75[01][0-9]\)'; then
  echo "ptxas.sh: products are serialized, see above"
  exit 1
fi
kernels=$(echo "$out" | grep -c 'bytes spill stores')
clean=$(echo "$out" | grep -c ' 0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads')
if [ "$kernels" -eq 0 ] || [ "$kernels" -ne "$clean" ]; then
  echo "$out"
  echo "ptxas.sh: $clean of $kernels kernels without spills"
  exit 1
fi
echo "ptxas.sh: $kernels kernels, no spills, nothing serialized"
