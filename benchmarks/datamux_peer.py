"""The original DataMux: replay a recording as fast as it can; print s per item.

    python datamux_peer.py FOLDER ITEMS

Run in a separate process: it reads its configuration from the working folder at import,
and replays from a daemon process.
"""

from __future__ import annotations

import logging
import os
import sys
import time


def main() -> None:
    folder, count = sys.argv[1], int(sys.argv[2])
    os.chdir(folder)
    logging.disable(logging.CRITICAL)
    import streaminghub_datamux as dm

    api = dm.API()
    attrs = {"subject": "A"}
    sink = dm.Queue(timeout=60)
    api.replay_collection_stream("eyes", "gaze", attrs, sink, rate_limit=False)
    sink.get()  # starting and reading the file is not measured
    begin = time.perf_counter()
    for _ in range(count - 1):
        sink.get()
    print((time.perf_counter() - begin) / (count - 1))


if __name__ == "__main__":
    main()
