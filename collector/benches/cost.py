#!/usr/bin/env python3
"""What recording costs the recorded workload, against `perf record` of the same events.

    sudo KMEMLAB=target/release/kmemlab python3 collector/benches/cost.py [ROUNDS]

One pinned thread opens, maps and frees in a loop; its CPU time is taken alone, while it is counted,
while perf records it and while kmemlab does, in alternation. The difference to the bare loop, divided
by the events, is the cost of one event. Needs root, perf, and two processors.
"""
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys
import time

ITERATIONS = 12_000
EVENTS = [
    "kmem:mm_page_alloc", "kmem:mm_page_free", "kmem:mm_page_free_batched",
    "kmem:mm_page_alloc_zone_locked", "kmem:mm_page_pcpu_drain", "kmem:mm_page_alloc_extfrag",
    "kmem:kmalloc", "kmem:kfree", "kmem:kmem_cache_alloc", "kmem:kmem_cache_free",
]


def worker():
    os.sched_setaffinity(0, {0})
    begin = time.process_time()
    for _ in range(ITERATIONS):
        os.close(os.open("/dev/null", os.O_RDONLY))
        os.stat("/tmp")
        for end in os.pipe():
            os.close(end)
        area = mmap.mmap(-1, 65536)
        for page in range(0, 65536, 4096):
            area[page] = 1
        area.close()
    print(time.process_time() - begin)


def run(prefix):
    out = subprocess.run(prefix + [sys.executable, __file__, "--worker"], check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return float(out.stdout.split()[-1])


def main():
    kmemlab = os.environ.get("KMEMLAB", "kmemlab")
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    folder = "/tmp/kmemlab-cost"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    chosen = [arg for event in EVENTS for arg in ("-e", event)]
    record = [kmemlab, "record", "--force", "--events", "page,slab"]
    ways = {
        "alone": [],
        "perf stat (counting only)": ["perf", "stat", "-a", "-o", "/dev/null", *chosen, "--"],
        "perf record": ["perf", "record", "-q", "-a", "-c", "1", "-m", "8M", "-o", f"{folder}/perf.data",
                        *chosen, "--"],
        "kmemlab record": [*record, "-o", f"{folder}/auto.kmt", "--"],
        "kmemlab record --count but-slab": [*record, "--count", "but-slab", "-o",
                                            f"{folder}/but-slab.kmt", "--"],
        "kmemlab record --count none": [*record, "--count", "none", "-o", f"{folder}/none.kmt", "--"],
        "kmemlab record --backend perf": [*record, "--backend", "perf", "-o", f"{folder}/perf.kmt", "--"],
    }
    times = {name: [] for name in ways}
    for _ in range(rounds):
        for name, prefix in ways.items():
            times[name].append(run(prefix))
    info = json.loads(subprocess.check_output([kmemlab, "info", "--json", f"{folder}/auto.kmt"]))
    per_iteration = events_per_iteration(kmemlab, folder)
    alone = min(times["alone"])
    cost = {name: (min(t) - alone) / ITERATIONS / per_iteration * 1e9 for name, t in times.items()}
    print(f"{per_iteration:.1f} events an iteration; the best of {rounds} rounds")
    print(f"{'':32} {'us/iteration':>13} {'ns/event':>9} {'of perf record':>15}")
    for name in ways:
        share = cost[name] / cost["perf record"]
        print(f"{name:32} {min(times[name]) / ITERATIONS * 1e6:13.1f} {cost[name]:9.0f} {share:14.2f}x")
    for name in ways:
        if name.startswith("kmemlab"):
            ratios = [(k - a) / (p - a) for k, p, a in
                      zip(times[name], times["perf record"], times["alone"]) if p > a]
            print(f"{name} / perf record by round: median {statistics.median(ratios):.2f}x")
    print(f"recorder's own CPU time: {info['recorder_cpu_ns'] / max(info['events'], 1):.0f} ns an event; "
          f"{info['lost_events']} of {info['events']} events lost")
    shutil.rmtree(folder)


def events_per_iteration(kmemlab, folder):
    """The worker is by far the busiest: what is not the recorder's is its own."""
    info = json.loads(subprocess.check_output([kmemlab, "info", "--json", f"{folder}/auto.kmt"]))
    return (info["events"] - info["recorder_events"]) / ITERATIONS


if __name__ == "__main__":
    worker() if sys.argv[1:] == ["--worker"] else main()
