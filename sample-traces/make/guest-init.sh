#!/bin/busybox sh
# The first and only program of the emulated machine: does its task and sends a tar file out.
bb=/bin/busybox
$bb --install -s /bin
export PATH=/bin
mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
mount -t tracefs none /sys/kernel/tracing
mount -t tmpfs none /tmp
stty -F /dev/ttyS1 raw -echo
task=$(sed 's/.*task=\([a-z]*\).*/\1/' /proc/cmdline)
release=$(sed 's/.*release=\([0-9.]*\).*/\1/' /proc/cmdline)

record() {
    cd /tmp
    kmemlab record --anonymous -o "guest-$release.kmt" ${events:+--events $events} \
        -- sh /load 2>&1
    tar -cf /dev/ttyS1 "guest-$release.kmt"
}

# The kernel's own descriptions of its events and the files of /proc that the recorder reads.
fixtures() {
    cd /tmp
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

$task
sync
sleep 1
poweroff -f
