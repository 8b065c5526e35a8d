# For the command's tests: expect STATUS PATTERN ARGS... runs genvid and checks its exit status and one line of stderr.
# Sourced with $genvid set; ends in a folder of its own.
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cd "$tmp"
count=0 failed=0

bad()
{
  failed=$((failed + 1))
  echo "FAILED: $*"
  sed 's/^/    stderr: /' "$tmp/.err" | head -n 20
}

expect()
{
  status=$1 pattern=$2
  shift 2
  count=$((count + 1))
  got=0
  "$genvid" "$@" > "$tmp/.out" 2> "$tmp/.err" < "${stdin-/dev/null}" || got=$?
  if [ "$got" != "$status" ]; then
    bad "genvid $*: exit status $got, expected $status"
  elif [ -n "$pattern" ] && ! grep -qE -e "$pattern" "$tmp/.err"; then
    bad "genvid $*: no line of stderr matches $pattern"
  elif grep -q 'Sanitizer\|runtime error' "$tmp/.err"; then
    bad "genvid $*: a sanitizer spoke"
  fi
}

# JSON of one line on stdin has "key": VALUE, or "key": at all.
json_has() { tr -d ' ' | grep -qE "\"$1\":${2-}"; }

# hold WHAT COMMAND...: a claim about what is there now
hold()
{
  what=$1
  shift
  count=$((count + 1))
  "$@" || bad "$what"
}

# Temporary files begin with a dot, as this file's own .out and .err do.
empty_folder() { [ -z "$(find . -mindepth 1 ! -name .out ! -name .err)" ]; }

finish()
{
  echo "$((count - failed)) passed, $failed failed"
  [ "$failed" = 0 ]
}
