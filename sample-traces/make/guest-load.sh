# Runs in the emulated machine: processes that exec and exit, files written, read and removed, and
# files of one page of which every other is removed, so that small blocks must be taken from other
# types.
mkdir -p /tmp/load
cd /tmp/load || exit 1
round=0
while [ $round -lt ${ROUNDS:-12} ]; do
    round=$((round + 1))
    for step in 1 2 3 4; do
        /bin/busybox true
        /bin/busybox dd if=/dev/zero of=file$step bs=64k count=4 2>/dev/null
        /bin/busybox cat file$step >/dev/null
        /bin/busybox mv file$step moved
        /bin/busybox rm moved
    done
done
