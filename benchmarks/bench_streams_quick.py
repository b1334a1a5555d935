"""Throughput and latency of streams between two processes; a quick look.

``python benchmarks/bench_streams_quick.py [seconds] [case ...]``
"""

import multiprocessing as mp
import os
import sys
import time

import numpy as np

from ataraxis.stream import Consumer, Producer, wait_for_stream

SIZES = {"8B": 8, "1KB": 1024, "64KB": 65536, "1MB": 1 << 20, "6.2MB": 6_220_800}
SLOTS = {"8B": 1024, "1KB": 1024, "64KB": 64, "1MB": 8, "6.2MB": 2}


def produce(name, size, slots, seconds, mode, rate):
    stream = Producer(
        name, shape=(size // 8,), dtype="u8", buffer_count=slots, sync=True
    )
    stream.wait_for_subscribers(1, timeout=10)
    data = np.arange(size // 8, dtype="u8")
    block = np.zeros((256, size // 8), "u8") if mode == "block" else None
    end = time.perf_counter() + seconds
    k = 0
    try:
        while True:
            if rate:
                due = time.perf_counter() + 1 / rate
                while (left := due - time.perf_counter()) > 0:
                    time.sleep(left)
                if time.perf_counter() > end:
                    break
                data[0] = time.monotonic_ns()
                stream.send(data)
                continue
            if mode == "block":
                stream.send_block(block, timeout=5)
            elif mode == "loan":
                with stream.next_to_send(timeout=5) as frame:
                    np.copyto(frame.array, data)
            else:
                for _ in range(64):
                    stream.send(data)
            k += 1
            if k % 16 == 0 and time.perf_counter() > end:
                break
    except TimeoutError:
        pass
    stream.close()


def consume(name, mode, rate, queue):
    wait_for_stream(name, 10)
    stream = Consumer(name)
    frame = stream.receive()
    del frame
    n, t0 = 0, time.perf_counter()
    delays = []
    if rate:
        spin = mode == "spin"
        while True:
            frame = None
            if spin:
                while stream.has_next and frame is None:
                    frame = stream.receive(False)
            else:
                frame = stream.receive()
            if frame is None:
                break
            first = int(np.frombuffer(frame, "u8", 1)[0])
            delays.append(time.monotonic_ns() - first)
        delays = np.array(delays[len(delays) // 10 :]) / 1000
        queue.put((np.percentile(delays, 50), np.percentile(delays, 99)))
        return
    if mode == "block":
        out = np.empty((256, *stream.labels.shape), "u8")
        try:
            while True:
                n += len(stream.read(256, out))
        except EOFError:
            pass
    else:
        receive = stream.receive
        while (frame := receive()) is not None:
            n += 1
    queue.put(n / (time.perf_counter() - t0))


def run(label, size, mode="send", seconds=1.0, rate=0, slots=None, consumers=1):
    context = mp.get_context("spawn")
    queue = context.Queue()
    name = f"bench-{os.getpid()}-{time.monotonic_ns()}"
    slots = slots or SLOTS[label]
    sender = context.Process(
        target=produce, args=(name, size, slots, seconds, mode, rate)
    )
    readers = [
        context.Process(target=consume, args=(name, mode, rate, queue))
        for _ in range(consumers)
    ]
    for process in (sender, *readers):
        process.start()
    results = [queue.get(timeout=60) for _ in readers]
    for process in (sender, *readers):
        process.join(20)
    return results


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    chosen = sys.argv[2:] or list(SIZES)
    for label in chosen:
        size = SIZES[label]
        for mode in ("send", "block", "loan"):
            if (mode == "block" and size > 65536) or (mode == "loan" and size < 65536):
                continue
            rates = [run(label, size, mode, seconds)[0] for _ in range(3)]
            rate = sorted(rates)[1]
            print(
                f"{label:6} {mode:6} {rate:12,.0f} msg/s {rate * size / 1e9:8.2f} GB/s"
                f"   ({min(rates):,.0f}..{max(rates):,.0f})",
                flush=True,
            )
        pace = 100 if size > 1 << 20 else 1000
        for mode in ("send", "spin"):
            p50, p99 = run(label, size, mode, 1.0, pace)[0]
            print(f"{label:6} latency {mode:5} p50 {p50:8.1f} us  p99 {p99:8.1f} us")


if __name__ == "__main__":
    main()
