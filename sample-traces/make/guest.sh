#!/usr/bin/env bash
# Records a load under another kernel: Debian's cloud kernel of that release, in an emulated machine.
#   guest.sh 6.1|6.12                 records guest-RELEASE.kmt
#   guest.sh 6.1|6.12 record LOAD     the same under forks, files, sockets or maps (guest-load.c)
#   guest.sh 6.1|6.12 fixtures        copies the kernel's own files for collector/tests/kernels/RELEASE
# MEMORY (MiB), CPUS, SECONDS_OF_LOAD, RING (of a processor) and DETAIL=yes (--slab-detail) say how;
# KERNEL_IMAGE is a kernel that is unpacked already. Needs qemu-system-x86, busybox-static, cpio, gcc for a LOAD, and the package
# cache of Debian 12. Nothing is installed and root is not needed.
set -euo pipefail
release=${1:?which release: 6.1 or 6.12}
task=${2:-record}
load=${3:-shell}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${OUT:-$here/..}
kmemlab=${KMEMLAB:-$(command -v kmemlab)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The newest cloud kernel of the release, unpacked.
kernel=${KERNEL_IMAGE:-}
if [ -z "$kernel" ]; then
    package=${KERNEL_PACKAGE:-$(apt-cache pkgnames linux-image-"$release". |
        grep -E -- '^linux-image-[0-9.+-]+(deb12-)?cloud-amd64$' | sort -V | tail -1)}
    [ -n "$package" ] || { echo "no cloud kernel $release in the package cache; apt-get update" >&2; exit 2; }
    (cd "$work" && apt-get -qq download "$package" && dpkg-deb -x "$package"_*.deb kernel)
    kernel=$(echo "$work"/kernel/boot/vmlinuz-*)
fi

# A root of busybox, kmemlab and the libraries that kmemlab names.
root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,tmp}
cp /bin/busybox "$root/bin/"
strip -o "$root/bin/kmemlab" "$kmemlab"
ldd "$kmemlab" | grep -o '/[^ ]*' | xargs -I{} cp --parents -L {} "$root"
cp "$here/guest-init.sh" "$root/init"
cp "$here/guest-load.sh" "$root/load"
[ "$load" = shell ] || gcc -static -O2 -o "$root/bin/guest-load" "$here/guest-load.c"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"

# What the guest writes to its second serial port arrives as a tar file.
timeout "${LIMIT:-300}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp "${CPUS:-2}" \
    -m "${MEMORY:-192}" -nographic -no-reboot -kernel "$kernel" -initrd "$work/initrd.gz" \
    -chardev stdio,id=console -serial chardev:console \
    -chardev file,id=out,path="$work/out.tar" -serial chardev:out \
    -append "console=ttyS0 quiet panic=-1 task=$task release=$release load=$load \
seconds=${SECONDS_OF_LOAD:-30} detail=${DETAIL:-no} ring=${RING:-8M} ${GUEST_OPTIONS:-}" \
    -monitor none -display none </dev/null | tr -d '\r' | tee "$work/console"
case $task in
record)
    rm -rf "$out/guest-$release.kmt"
    tar -xf "$work/out.tar" -C "$out"
    ;;
fixtures)
    folder=$here/../../collector/tests/kernels/$release
    mkdir -p "$folder"
    tar -xf "$work/out.tar" -C "$folder"
    ;;
esac
