#!/usr/bin/env bash
# Anonymous memory where higher orders are scarce. A pool of huge pages holds most of the machine,
# a helper breaks up most of the rest, and the recorded load asks for huge pages and small ones.
# Everything is put back at the end.
. "$(dirname "$0")/common.sh"
pool=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
before=$(cat $pool)
helper=
put_back() {
    [ -z "$helper" ] || kill "$helper" 2>/dev/null || true
    echo "$before" >$pool
}
trap put_back EXIT

available=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
echo $((before + (available - 2200) / 2)) >$pool
left=$(awk '/^MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)
coproc python3 "$here/load.py" fragment $((left - 500))
helper=$COPROC_PID
read -r _ <&"${COPROC[0]}"
record pressure --events page,compaction,reclaim,oom,vmalloc -- python3 load.py pressure 4.5
