"""Frames from the ring to a GPU, compared with one page-locked buffer and PyTorch.

    python benchmarks/bench_gpu.py [--json OUT] [--quick] [--rehearse] [--device cuda:0]

It needs an NVIDIA GPU, its driver and PyTorch for CUDA; without, it prints which rows
were not measured, and why. `--rehearse` runs every row on the processor, small: its
numbers mean nothing, and none is judged.

- large: frames of 6.2 MB from ``receive()`` to the GPU, GB/s; page-locked and not;
  compared with one page-locked buffer that is copied over and over.
- batches: frames of 64 KB, 64 in a tensor; compared with one page-locked buffer of the
  same 4 MB.
- producer: its rate with a lossy reader whose GPU is busy, frames/s; compared with a
  lossy reader that copies nothing.
- end to end: send, receive, copy and a small kernel, frames of 6.2 MB, frames/s;
  compared with PyTorch's DataLoader with pin_memory and two workers, and with
  ``from_numpy().cuda()``.
- latency: a frame of 64 KB from `send` to the end of a kernel that reads it, us, with a
  recorder beside; page-locked and not.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
from measure import Aim, Result, interleaved, report

from ataraxis import Consumer, Producer, Recorder
from ataraxis.errors import GpuUnavailable
from ataraxis.gpu.drivers import driver_for

LARGE, SMALL, EACH = (1080, 1920, 3), (64, 1024), 64
PINNED, PAGEABLE, BUFFER = "ataraxis, pinned", "ataraxis, pageable", "one pinned buffer"
BUSY, IDLE = "reader copies to the GPU", "reader copies nothing"
LOADER, PLAIN = "DataLoader, pin_memory, 2 workers", "from_numpy().cuda()"
AIMS = [
    Aim("large", PINNED, BUFFER, 0.97, 0.9, False),
    Aim("large", PINNED, PAGEABLE, 7, 5, False),
    Aim("batches", PINNED, BUFFER, 0.9, 0.7, False),
    Aim("producer", BUSY, IDLE, 0.97, 0.9, False),
    Aim("end to end", PINNED, LOADER, 2, 2, False),
]
ROWS = (
    "large: pinned against one pinned buffer (0.97x) and pageable (7x)",
    "batches: 64 frames of 64 KB against one pinned buffer (0.9x)",
    "producer: its rate with a lossy reader that copies to the GPU (unmoved)",
    "end to end: against PyTorch's DataLoader (2x)",
    "latency: p50, p99, p99.9 of 100,000 frames of 64 KB, pinned and pageable",
)
SENDER = """
import sys, time
import numpy as np
from ataraxis import Producer
name, count, sizes = sys.argv[1], int(sys.argv[2]), sys.argv[3]
shape = tuple(map(int, sizes.split(",")))
frame = np.arange(np.prod(shape), dtype="u4").astype("u1").reshape(shape)
policy = dict(buffer_count=int(sys.argv[4]), sync=sys.argv[5] == "sync")
with Producer(name, shape=shape, dtype="u1", **policy) as producer:
    producer.wait_for_subscribers(1, timeout=60)
    began = time.perf_counter()
    for _ in range(count):
        producer.send(frame)
    print(count / (time.perf_counter() - began), flush=True)
"""


def reason() -> str | None:
    """Return why nothing can be measured here; None: it can."""
    try:
        driver_for("a benchmark")
    except GpuUnavailable as error:
        return str(error)
    if importlib.util.find_spec("torch") is None:
        return "PyTorch is not installed"
    import torch

    return None if torch.cuda.is_available() else "PyTorch sees no GPU"


class Rows:
    """The measurements, on one device."""

    def __init__(self, device: str, is_quick: bool, is_rehearsal: bool) -> None:
        import torch

        self.torch, self.device = torch, device
        self.is_gpu = device != "cpu"
        self.repetitions = 2 if is_rehearsal else 5 if is_quick else 9
        self.frames = 8 if is_rehearsal else 100 if is_quick else 400
        self.turns = 50 if is_rehearsal else 10_000 if is_quick else 100_000
        self.number = 0

    def wait(self) -> None:
        if self.is_gpu:
            self.torch.cuda.synchronize(self.device)

    def pinned(self, handle: Any, is_pinned: bool) -> Any:
        return handle.pin() if is_pinned and self.is_gpu else nullcontext()

    @contextmanager
    def sender(
        self, count: int, shape: tuple[int, ...], slots: int, policy: str
    ) -> Iterator[tuple[str, subprocess.Popen[str]]]:
        """Run a producer in a process of its own."""
        self.number += 1
        name = f"bench_gpu_{self.number}"
        sizes = ",".join(map(str, shape))
        process = subprocess.Popen(
            [sys.executable, "-c", SENDER, name, str(count), sizes, str(slots), policy],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            yield name, process
        finally:
            process.kill()
            process.wait()

    # ---- large

    def from_ring(self, is_pinned: bool) -> float:
        """Return GB/s of frames that wait in the ring."""
        nbytes = int(np.prod(LARGE))
        frame = np.zeros(LARGE, "u1")
        name = f"bench_gpu_large_{is_pinned}"
        with (
            Producer(name, shape=LARGE, dtype="u1", buffer_count=16) as producer,
            Consumer(name, policy="lossless") as consumer,
            self.pinned(consumer, is_pinned),
        ):
            spent, done = 0.0, 0
            while done < self.frames:
                for _ in range(8):
                    producer.send(frame)
                self.wait()
                began = time.perf_counter()
                for _ in range(8):
                    with consumer.receive() as received:
                        made = received.to_torch(self.device)
                self.wait()
                spent += time.perf_counter() - began
                done += 8
                del made, received
            producer.unlink()
        return done * nbytes / spent / 1e9

    def from_buffer(self, nbytes: int) -> float:
        """Return GB/s of one page-locked buffer, copied over and over."""
        torch = self.torch
        source = torch.empty(nbytes, dtype=torch.uint8, pin_memory=self.is_gpu)
        self.wait()
        began = time.perf_counter()
        for _ in range(self.frames):
            target = torch.empty(nbytes, dtype=torch.uint8, device=self.device)
            target.copy_(source, non_blocking=True)
        self.wait()
        return self.frames * nbytes / (time.perf_counter() - began) / 1e9

    def large(self) -> list[Result]:
        peers = {
            PINNED: lambda: self.from_ring(True),
            PAGEABLE: lambda: self.from_ring(False),
            BUFFER: lambda: self.from_buffer(int(np.prod(LARGE))),
        }
        return interleaved("large", "GB/s", peers, self.repetitions)

    # ---- batches

    def in_batches(self, is_pinned: bool) -> float:
        """Return GB/s of small frames that wait in the ring, gathered in tensors."""
        nbytes = int(np.prod(SMALL))
        slots = 8 * EACH
        rows = np.zeros((4 * EACH, *SMALL), "u1")
        name = f"bench_gpu_batches_{is_pinned}"
        with (
            Producer(name, shape=SMALL, dtype="u1", buffer_count=slots) as producer,
            Consumer(name, policy="lossless") as consumer,
            self.pinned(consumer, is_pinned),
        ):
            spent, done = 0.0, 0
            batches = consumer.batches(EACH, device=self.device)
            while done < self.frames:
                producer.send_block(rows)
                self.wait()
                began = time.perf_counter()
                for _ in range(4):
                    next(batches)
                self.wait()
                spent += time.perf_counter() - began
                done += 4
            batches.close()
            producer.unlink()
        return done * EACH * nbytes / spent / 1e9

    def batches(self) -> list[Result]:
        peers = {
            PINNED: lambda: self.in_batches(True),
            PAGEABLE: lambda: self.in_batches(False),
            BUFFER: lambda: self.from_buffer(EACH * int(np.prod(SMALL))),
        }
        return interleaved("batches", "GB/s", peers, self.repetitions)

    # ---- the producer's rate

    def rate_of_producer(self, is_copying: bool) -> float:
        """Return frames/s of a producer with one lossy reader."""
        with self.sender(20 * self.frames, LARGE, 8, "lossy") as (name, process):
            with (
                Consumer(name, policy="lossy", timeout=60) as consumer,
                self.pinned(consumer, is_copying),
            ):
                for frame in consumer:
                    if is_copying:
                        frame.to_torch(self.device)
                    frame.release()
            assert process.stdout is not None
            return float(process.stdout.readline())

    def producer(self) -> list[Result]:
        peers = {
            BUSY: lambda: self.rate_of_producer(True),
            IDLE: lambda: self.rate_of_producer(False),
        }
        return interleaved("producer", "frames/s", peers, self.repetitions)

    # ---- end to end

    def kernel(self, image: Any) -> Any:
        return image.float().mean()

    def by_ring(self, is_pinned: bool) -> float:
        """Return frames/s from another process to a kernel's result."""
        with (
            self.sender(self.frames, LARGE, 16, "sync") as (name, _),
            Consumer(name, policy="lossless", timeout=60) as consumer,
            self.pinned(consumer, is_pinned),
        ):
            first = consumer.receive()
            first.release()
            began, done = time.perf_counter(), 0
            for frame in consumer:
                self.kernel(frame.to_torch(self.device))
                frame.release()
                done += 1
            self.wait()
            return done / (time.perf_counter() - began)

    def by_loader(self) -> float:
        """Return frames/s of PyTorch's DataLoader."""
        torch = self.torch
        loader = torch.utils.data.DataLoader(
            _Images(self.frames), batch_size=None, num_workers=2,
            pin_memory=self.is_gpu,
        )  # fmt: skip
        images = iter(loader)
        next(images)
        began, done = time.perf_counter(), 0
        for image in images:
            self.kernel(image.to(self.device, non_blocking=True))
            done += 1
        self.wait()
        return done / (time.perf_counter() - began)

    def plainly(self) -> float:
        """Return frames/s of an array of this process."""
        array = np.zeros(LARGE, "u1")
        began = time.perf_counter()
        for _ in range(self.frames):
            self.kernel(self.torch.from_numpy(array).to(self.device))
        self.wait()
        return self.frames / (time.perf_counter() - began)

    def end_to_end(self) -> list[Result]:
        peers = {
            PINNED: lambda: self.by_ring(True),
            PAGEABLE: lambda: self.by_ring(False),
            LOADER: self.by_loader,
            PLAIN: self.plainly,
        }
        return interleaved("end to end", "frames/s", peers, self.repetitions)

    # ---- latency

    def latency(self) -> list[Result]:
        found = []
        for is_pinned, peer in ((True, PINNED), (False, PAGEABLE)):
            times = self.turnaround(is_pinned)
            for name, share in (("p50", 50), ("p99", 99), ("p99.9", 99.9)):
                value = float(np.percentile(times, share))
                found.append(
                    Result(
                        f"latency {name}", peer, "us", value, value, value, len(times)
                    )
                )
        return found

    def turnaround(self, is_pinned: bool) -> np.ndarray:
        """Return the time of each turn, us, with a recorder of the stream beside."""
        frame = np.zeros(SMALL, "u1")
        times = np.empty(self.turns)
        name = f"bench_gpu_latency_{is_pinned}"
        with (
            tempfile.TemporaryDirectory() as folder,
            Producer(name, shape=SMALL, dtype="u1", buffer_count=256) as producer,
            Recorder(name, folder),
            Consumer(name, policy="lossless", start="latest") as consumer,
            self.pinned(consumer, is_pinned),
        ):
            for k in range(self.turns):
                began = time.perf_counter_ns()
                producer.send(frame)
                received = consumer.receive()
                result = self.kernel(received.to_torch(self.device))
                received.release()
                self.wait()
                times[k] = (time.perf_counter_ns() - began) / 1000
            del result
        return times


class _Images:
    """Frames of a data set that its workers make."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        import torch

        if index >= self.count:
            raise IndexError(index)
        return torch.zeros(LARGE, dtype=torch.uint8)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--device", default="cuda:0")
    options = parser.parse_args()
    why = None if options.rehearse else reason()
    if why is not None:
        notes = [f"Not measured: {why}", *(f"Not measured: {row}" for row in ROWS)]
        return report([], AIMS, options.json, notes)
    device = "cpu" if options.rehearse else options.device
    rows = Rows(device, options.quick, options.rehearse)
    results = rows.large() + rows.batches() + rows.producer()
    results += rows.end_to_end() + rows.latency()
    if options.rehearse:
        print(
            f"rehearsed {len(results)} rows on the processor: no number means anything"
        )
        return 0
    return report(results, AIMS, options.json)


if __name__ == "__main__":
    sys.exit(main())
