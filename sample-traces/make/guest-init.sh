#!/bin/busybox sh
# The first and only program of the emulated machine: does its task and sends a tar file out.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tracefs none /sys/kernel/tracing
mount -t tmpfs -o size=95% none /tmp
cd /tmp
stty -F /dev/ttyS1 raw -echo
argument() { sed -n "s/.*\<$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
release=$(argument release)
load=$(argument load)
options="--anonymous --ring $(argument ring)"
[ "$(argument detail)" = yes ] && options="$options --slab-detail"

# Fills memory with two files, a piece of each in turn, and removes one of them: what is free is in
# small blocks, and requests of a type whose own blocks are used up must take from another.
break_up() {
    pieces=$(awk '/^MemFree/ {print int(($2 - 14000) / 2 / 64)}' /proc/meminfo)
    for piece in $(seq 0 $pieces); do
        for file in kept removed; do
            dd if=/dev/zero of=$file bs=64k count=1 seek="$piece" conv=notrunc 2>/dev/null
        done
    done
    rm removed
}

record() {
    case $load in
    shell)
        break_up
        # shellcheck disable=SC2086
        kmemlab record $options -o "guest-$release.kmt" -- sh /load 2>&1
        ;;
    *)
        # shellcheck disable=SC2086
        kmemlab record $options -o "guest-$release.kmt" -- \
            guest-load "$load" "$(argument seconds)" 2>&1
        ;;
    esac
    tar -cf /dev/ttyS1 "guest-$release.kmt"
}

# The kernel's own descriptions of its events and the files of /proc that the recorder reads.
fixtures() {
    mkdir proc
    for file in buddyinfo pagetypeinfo slabinfo vmallocinfo vmstat zoneinfo; do
        cat /proc/$file >proc/$file
    done
    for system in kmem vmalloc compaction vmscan oom migrate; do
        [ -d /sys/kernel/tracing/events/$system ] || continue
        for format in /sys/kernel/tracing/events/$system/*/format; do
            to=events/${format#/sys/kernel/tracing/events/}
            mkdir -p "${to%/format}"
            cat "$format" >"$to"
        done
    done
    tar -cf /dev/ttyS1 proc events
}

$(argument task)
sync
sleep 1
poweroff -f
