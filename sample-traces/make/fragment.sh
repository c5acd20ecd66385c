#!/usr/bin/env bash
# Records processes that start where no block of order 3 is free, so that slabs of task_struct,
# sighand_cache and mm_struct fall back to their least order.
#   fragment.sh OUT.kmt
# Needs root, gcc and a machine that nobody else uses: all of its memory is taken for a minute.
# SPARE (MiB) is left for the rest. The recording is too large to be shipped.
set -euo pipefail
out=${1:?where to: OUT.kmt}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
kmemlab=${KMEMLAB:-$(command -v kmemlab)}
work=$(mktemp -d)
switch=/proc/sys/vm/compact_unevictable_allowed
before=$(cat "$switch")
trap 'echo "$before" >"$switch"; rm -rf "$work"' EXIT

gcc -O2 -Wall -o "$work/fragment" "$here/fragment.c"
sync
echo 3 >/proc/sys/vm/drop_caches
echo 0 >"$switch"
# shellcheck disable=SC2016
load='for round in 1 2 3; do for n in $(seq 500); do sleep 1.5 & done; wait; done'
"$work/fragment" "${SPARE:-900}" "$kmemlab" record --force -o "$out" -- sh -c "$load"
