# Runs in the emulated machine: processes that exec and exit, files written, read, renamed and
# removed, and empty files of which every other one stays, so that the kernel's own objects grow.
mkdir -p /tmp/load/empty
cd /tmp/load || exit 1
round=0
while [ $round -lt 14 ]; do
    round=$((round + 1))
    for file in 1 2 3 4; do
        /bin/busybox dd if=/dev/zero of=file$file bs=64k count=4 2>/dev/null
        /bin/busybox cat file$file >/dev/null
        /bin/busybox mv file$file moved
        /bin/busybox rm moved
    done
    number=0
    while [ $number -lt 250 ]; do
        number=$((number + 1))
        : >empty/$round-$number
    done
    /bin/busybox rm empty/$round-*[02468]
done
