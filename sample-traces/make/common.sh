# Sourced by the recipes: finds kmemlab and records one load.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here/..}
# Found by name: a recording keeps its own command line.
PATH=${KMEMLAB:+$(cd "$(dirname "$KMEMLAB")" && pwd):}$PATH
cd "$here"
[ "$(id -u)" = 0 ] || { echo "recording needs root" >&2; exit 2; }
[ -d /sys/kernel/tracing/events ] || mount -t tracefs nodev /sys/kernel/tracing

# record NAME OPTIONS... -- COMMAND...
record() {
    local name=$1
    shift
    kmemlab record --anonymous --force -o "$out/$name.kmt" "$@"
}
