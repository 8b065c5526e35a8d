#!/bin/sh
# The packages that a build with everything needs, on Debian 12 and what descends from it. Asks nothing of the network when
# they are all there. Needs root or sudo only when something is missing.
set -eu

packages="build-essential cmake ninja-build pkg-config git
  libjansson-dev libutf8proc-dev libpcre2-dev libstb-dev libcmocka-dev
  libavformat-dev libavcodec-dev libavutil-dev libturbojpeg0-dev libedit-dev libdnnl-dev"

if ! command -v dpkg-query > /dev/null; then
  echo "This is not a Debian system. Install what these packages stand for, then build with CMake:" $packages
  exit 0
fi

missing=
for package in $packages; do
  status=$(dpkg-query -W -f '${Status}' "$package" 2> /dev/null || true)
  [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
if [ "$(id -u)" = 0 ]; then
  sudo=
elif command -v sudo > /dev/null; then
  sudo=sudo
else
  echo "Root or sudo is needed to install:$missing" >&2
  exit 1
fi
# shellcheck disable=SC2086 # words on purpose
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q
# shellcheck disable=SC2086
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
