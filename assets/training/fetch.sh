#!/bin/sh
# Rebuilds the world pack (the source pack.py cuts from) from package names: animated and still emoji, cartoon emoji, panoramas, photos for judging.
# Needs npm, apt (Debian 12), dpkg, python3 with pillow and OpenEXR, and about 1 GB of room while it runs. Nothing here is committed but this recipe.
#
#     sh fetch.sh WORK_DIR       then: python3 pack.py --world WORK_DIR/world --photos WORK_DIR/deb/usr/lib/python3/dist-packages/skimage/data --out .pack
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:?usage: fetch.sh WORK_DIR}
mkdir -p "$work/npm" "$work/deb"
cd "$work/npm"
for p in @lobehub/fluent-emoji-anim-1@1.0.0 @lobehub/fluent-emoji-anim-2@1.0.0 @lobehub/fluent-emoji-anim-3@1.0.0 @lobehub/fluent-emoji-anim-4@1.0.0 \
         @lobehub/fluent-emoji-3d@1.1.0 @pmndrs/assets@1.7.0; do
  f=$(npm pack --silent "$p")
  d=$(echo "$p" | sed 's/@[0-9.]*$//; s/[@\/]/_/g')
  mkdir -p "$d" && tar -xzf "$f" -C "$d"
done
cd "$work/deb"
apt-get download fonts-noto-color-emoji blender-data python3-skimage
for f in *.deb; do dpkg -x "$f" .; done
"${PYTHON:-python3}" "$here/gather.py" --npm "$work/npm" --deb "$work/deb" --out "$work/world"
