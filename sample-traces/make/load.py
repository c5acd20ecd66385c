#!/usr/bin/env python3
"""Loads for the sample traces. Each keeps to a rate, so that five seconds stay small on disk."""
import ctypes
import mmap
import os
import socket
import subprocess
import sys
import time

PAGE = 4096
libc = ctypes.CDLL(None, use_errno=True)
MADV_DONTNEED, MADV_HUGEPAGE, MADV_NOHUGEPAGE = 4, 14, 15


def until(seconds, pause):
    """Goes on for that long, with a pause after each round."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(pause)


def fork_open(seconds):
    """Forks that exec and exit, files opened, written, renamed and removed."""
    folder = f"/tmp/kmemlab-load-{os.getpid()}"
    os.makedirs(folder)
    for _ in until(seconds, 0.015):
        for _ in range(2):
            subprocess.run(["/bin/true"], check=True)
        for index in range(12):
            name = f"{folder}/{index}"
            with open(name, "wb") as file:
                file.write(b"x" * PAGE * 3)
            os.rename(name, name + "-renamed")
            with open(name + "-renamed", "rb") as file:
                file.read()
            os.remove(name + "-renamed")
    os.rmdir(folder)


def madvise(area, offset, length, advice):
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    libc.madvise(ctypes.c_void_p(base + offset), ctypes.c_size_t(length), advice)


def fragment(mebibytes):
    """Takes small pages and gives back every other one, then waits to be killed."""
    size = mebibytes << 20
    area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    madvise(area, 0, size, MADV_NOHUGEPAGE)
    for offset in range(0, size, PAGE):
        area[offset] = 1
    for offset in range(0, size, 2 * PAGE):
        madvise(area, offset, PAGE, MADV_DONTNEED)
    print("ready", flush=True)
    time.sleep(600)


def pressure(seconds):
    """Huge pages and small ones in turn, where little but small pages is left."""
    size = 16 << 20
    for round_, _ in enumerate(until(seconds, 0.12)):
        area = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        huge = round_ % 2 == 0
        madvise(area, 0, size, MADV_HUGEPAGE if huge else MADV_NOHUGEPAGE)
        for offset in range(0, size, PAGE * (32 if huge else 2)):
            area[offset] = 1
        del area


def slab_churn(seconds):
    """Dentries of names that do not exist, sockets, pipes."""
    for round_, _ in enumerate(until(seconds, 0.012)):
        for index in range(80):
            try:
                os.stat(f"/tmp/no-such-file-{round_}-{index}")
            except FileNotFoundError:
                pass
        pairs = [socket.socketpair() for _ in range(12)]
        for left, right in pairs:
            left.send(b"y" * 600)
            right.recv(600)
        for pair in pairs:
            for end in pair:
                end.close()
        pipes = [os.pipe() for _ in range(6)]
        for pipe in pipes:
            for end in pipe:
                os.close(end)


LOADS = {"fork-open": fork_open, "fragment": fragment, "pressure": pressure, "slab-churn": slab_churn}

if __name__ == "__main__":
    LOADS[sys.argv[1]](float(sys.argv[2]) if sys.argv[1] != "fragment" else int(sys.argv[2]))
