"""A source of a rig for pictures: a probe with units, or a camera with a mouse."""

from __future__ import annotations

import os
import sys
import threading
import time

import numpy as np

from ataraxis import Producer

BLOCKS = 100
CHANNELS, SAMPLES, RATE_HZ = 64, 300, 30_000


def probe_blocks() -> np.ndarray:
    """One second of a probe: a slow wave, noise, and spikes of eight neurons."""
    rng = np.random.default_rng(7)
    t = np.arange(BLOCKS * SAMPLES) / RATE_HZ
    channels = np.arange(CHANNELS)
    wave = 22 * np.sin(2 * np.pi * 3 * t[:, None] - channels / 14)
    found = wave + rng.normal(0, 8, (len(t), CHANNELS))
    shape = -np.exp(-(((np.arange(40) - 10) / 4.0) ** 2))
    shape += 0.35 * np.exp(-(((np.arange(40) - 22) / 7.0) ** 2))
    for place in np.linspace(4, CHANNELS - 6, 8):
        near = 150 * np.exp(-(((channels - place) / 1.6) ** 2))
        for at in rng.integers(0, len(t) - 40, rng.integers(8, 26)):
            found[at : at + 40] += shape[:, None] * near
    return found.round().astype("i2").reshape(BLOCKS, SAMPLES, CHANNELS)


def pictures() -> np.ndarray:
    """A mouse that runs in a circle, in a lit arena."""
    y, x = np.mgrid[:480, :640]
    rng = np.random.default_rng(3)
    away = ((y - 240) / 222) ** 2 + ((x - 320) / 285) ** 2
    arena = np.where(away < 1, 185 - 55 * away, 42)
    found = np.empty((60, 480, 640), "u1")
    for k in range(60):
        angle = 2 * np.pi * k / 60
        dy, dx = y - 240 - 110 * np.sin(angle), x - 320 - 165 * np.cos(angle)
        along = dx * -np.sin(angle) + dy * np.cos(angle)
        across = dx * np.cos(angle) + dy * np.sin(angle)
        body = np.exp(-((along / 34) ** 2 + (across / 15) ** 2))
        head = np.exp(-(((along - 38) / 13) ** 2 + (across / 10) ** 2))
        light = arena * (1 - 0.93 * np.maximum(body, head))
        found[k] = (light + rng.normal(0, 3, light.shape)).clip(0, 255)
    return found


def main() -> None:
    name = os.environ["ATARAXIS_STREAM"]
    values = probe_blocks() if sys.argv[1] == "probe" else pictures()
    dims = ("time", "channel") if sys.argv[1] == "probe" else ("y", "x")
    attrs = {"sample_rate_hz": RATE_HZ, "units": "uV"} if sys.argv[1] == "probe" else {}
    hz = 100.0 if sys.argv[1] == "probe" else 60.0
    is_over = threading.Event()
    threading.Thread(
        target=lambda: (sys.stdin.read(), is_over.set()), daemon=True
    ).start()
    with Producer(
        name, shape=values.shape[1:], dtype=values.dtype, dims=dims, attrs=attrs,
        buffer_count=128,
    ) as stream:  # fmt: skip
        began = time.monotonic()
        k = 0
        while not is_over.wait(max(began + k / hz - time.monotonic(), 0)):
            stream.send(values[k % len(values)])
            k += 1


if __name__ == "__main__":
    main()
