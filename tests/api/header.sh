#!/bin/sh
# genvid.h stands alone: as C17 and as C++11, with every warning an error and nothing else included.
#   header.sh SOURCE CC
set -eu
src=$1 cc=$2
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

cat > "$tmp/use.c" <<'END'
#include <genvid.h>
#include <genvid.h>
int use(void);
int use(void)
{
    gv_video_request r;
    gv_engine_params p;
    gv_estimate      e;
    gv_video_request_init(&r);
    gv_engine_params_init(&p);
    gv_estimate_init(&e);
    return gv_api_version() == GV_API_VERSION && r.struct_size == sizeof r ? GV_OK : GV_ERR_INTERNAL;
}
END
"$cc" -std=c17 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wmissing-prototypes -Werror -I"$src/include" \
  -fsyntax-only "$tmp/use.c"
echo "genvid.h alone as C17"

# An enum of this API may be returned from C++ without a cast, and no C++ keyword is used as a name.
cp "$tmp/use.c" "$tmp/use.cpp"
if command -v c++ > /dev/null; then
  c++ -std=c++11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I"$src/include" -fsyntax-only "$tmp/use.cpp"
  echo "genvid.h alone as C++11"
else
  echo "no C++ compiler: C++11 is left out"
  exit 77
fi
