"""A recorded session that is made at once: probe, camera, wheel, events, log."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from view_rig import probe_block

from ataraxis.clock import Anchor
from ataraxis.frame import crc32
from ataraxis.frame._header import Header
from ataraxis.labels import Labels
from ataraxis.log import JournalWriter
from ataraxis.log.journal.page import FileHeader
from ataraxis.session.directory import SessionLog, SessionRecord
from ataraxis.session.events import EVENT
from ataraxis.session.verdict import judge

RATE, BLOCK = 10_000, 100
LONG_RATE = 30_000


def eye(k: int, high: int = 240, wide: int = 320) -> np.ndarray:
    """A picture of an arena with a mouse in it."""
    y, x = np.mgrid[:high, :wide]
    light = np.where(
        ((y - high / 2) / (high * 0.46)) ** 2 + ((x - wide / 2) / (wide * 0.45)) ** 2
        < 1, 170, 40,
    )  # fmt: skip
    place = (
        high / 2 + high * 0.2 * np.sin(k / 9),
        wide / 2 + wide * 0.25 * np.cos(k / 7),
    )
    mouse = np.hypot(y - place[0], x - place[1])
    shade = (light - 160 * np.exp(-((mouse / (high / 20)) ** 2))).clip(0, 255)
    return shade.astype("u1")


def recorded_session(
    folder: Path, seconds: int = 20, channels: int = 16, lost: tuple[int, ...] = (),
) -> Path:  # fmt: skip
    """Write a session; blocks of the probe of these numbers are missing."""
    home = folder / "m42_day3"
    home.mkdir(parents=True)
    record = SessionRecord.take("m42_day3", "m42", "/dev/shm/rig")
    begin = record.clock.monotonic_ns
    record.streams = record.ended = ["camera", "events", "probe", "wheel"]
    record.to_yaml(home / "session.yaml")
    (home / "config.yaml").write_text("stimulus: grating\nreward_ul: 5\n")
    count, period = seconds * RATE // BLOCK, 10**9 * BLOCK // RATE
    kept = [k for k in range(count) if k not in lost]
    labels = Labels(
        "i2", (BLOCK, channels), ("time", "channel"),
        attrs={"sample_rate_hz": RATE, "units": "uV"},
    )  # fmt: skip
    blocks = [probe_block(k, channels, BLOCK) for k in range(64)]
    with JournalWriter(home, "probe") as journal:
        journal.describe(1, "probe", labels)
        for run in np.split(kept, np.flatnonzero(np.diff(kept) > 1) + 1):
            data = np.stack([blocks[k % 64] for k in run])
            stamps = begin + period * (np.asarray(run) + 1)
            journal.log_block(1, data, time_ns=stamps, sequence=int(run[0]))
    with JournalWriter(home, "camera") as journal:
        journal.describe(1, "camera", Labels("u1", (240, 320), ("y", "x")))
        shown = np.stack([eye(k) for k in range(seconds * 10)])
        stamps = begin + 10**8 * np.arange(len(shown))
        journal.log_block(1, shown, time_ns=stamps)
    with JournalWriter(home, "wheel") as journal:
        about = Labels("f4", (2,), ("axis",), coords={"axis": ["left", "right"]},
                       attrs={"units": "cm/s"})  # fmt: skip
        journal.describe(1, "wheel", about)
        t = np.arange(seconds * 50) / 50
        walk = np.stack([10 + 5 * np.sin(t), 9 + 5 * np.cos(t / 2)], 1).astype("f4")
        journal.log_block(1, walk, time_ns=begin + (t * 1e9).astype("i8"))
    with JournalWriter(home, "events") as journal:
        journal.describe(1, "events", Labels(EVENT, ()))
        times = begin + 10**9 * np.arange(1, seconds, 2)
        names = np.array(
            [("stim_on" if k % 2 else "reward", "{}") for k in range(len(times))], EVENT
        )
        journal.log_block(1, names, time_ns=times)
    log = SessionLog(home / "session.log", record.clock)
    log.write("session 'm42_day3' of subject 'm42'")
    log.close()
    with (home / "session.log").open("a") as file:
        for at, text in (
            (0.3, "the recorder was killed and is back after 0.8 s"),
            (0.6, "'probe' waited for readers for 0.2 s"),
        ):
            ns = begin + int(at * seconds * 1e9)
            wall = str(record.clock.to_datetime64(ns))[:23]
            file.write(f"{wall}Z {ns} {text}\n")
    judge(home, Anchor.take()).to_yaml(home / "verdict.yaml")
    return home


def sparse_recording(folder: Path, blocks: int, channels: int = 160) -> Path:
    """Write a recording of a probe, `blocks` s, whose samples are holes in a file.

    10,800 blocks are three hours and 104 GB, of which some 100 MB are on the disk.
    Sample 0 of every 1,000th block is 1,000 plus its number.
    """
    home = folder / "long"
    labels = Labels(
        "i2", (LONG_RATE, channels), ("time", "channel"),
        attrs={"sample_rate_hz": LONG_RATE, "units": "uV"},
    )  # fmt: skip
    with JournalWriter(home, "probe") as journal:
        journal.describe(1, "probe", labels)
        journal.log_block(1, np.zeros((1, *labels.shape), "i2"), time_ns=10**9)
    (path,) = home.glob("*.axj")
    head = path.read_bytes()
    seed = FileHeader.unpack(head[:4096]).seed
    at = 4096
    while (header := Header.read(head, at, seed=seed)).source != 1:
        at += header.nbytes + -header.nbytes % 64
    payload = head[at + header.nbytes - header.payload_bytes : at + header.nbytes]
    checksum, step = crc32(payload), header.nbytes + -header.nbytes % 64
    buffer = bytearray(header.nbytes - header.payload_bytes)
    path.with_suffix(".axi").unlink()  # it is made again from the headers
    with path.open("r+b") as file:
        for k in range(1, blocks):
            place = at + k * step
            own = replace(header, sequence=k, time_ns=(k + 1) * 10**9)
            own.write(buffer, crc=checksum, seed=seed)
            file.seek(place)
            file.write(buffer)
            if k % 1000 == 0:
                file.write(np.array([1000 + k], "i2").tobytes())
        file.truncate(at + blocks * step)
    return home
