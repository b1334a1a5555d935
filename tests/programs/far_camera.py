"""A camera of a user, as a module: numbered frames into the stream of the rig.

``python -m far_camera [COUNT]``; without a count it sends until it is ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from itertools import count

import numpy as np

from ataraxis import Producer


def film(frames: int | None, pause_s: float = 0.005) -> None:
    """Send numbers, 200 a second; the counter of the device is the same number."""
    with Producer(
        os.environ["ATARAXIS_STREAM"], shape=(3,), dtype="i8", buffer_count=400,
        attrs={"device_counter": "frames"},
    ) as producer:  # fmt: skip
        for k in count() if frames is None else range(frames):
            producer.send(
                np.full(3, k, "i8"), device_time=k, device_sequence=k, timeout=600
            )
            time.sleep(pause_s)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    film(int(sys.argv[1]) if len(sys.argv) > 1 else None)
