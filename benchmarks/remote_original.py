"""The original's remote API: replay as fast as it can; print s per item.

    python remote_original.py FOLDER CODEC ITEMS

Run by a Python that has it installed. Server and client are separate processes. It
ignores rate_limit=False over the network, so the recording's times are 1 us apart.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVER = """
import logging; logging.disable(logging.CRITICAL)
from streaminghub_datamux.remote import DataMuxServer
import asyncio, inspect, sys
made = DataMuxServer("websocket").start("127.0.0.1", int(sys.argv[1]))
if inspect.iscoroutine(made):
    asyncio.run(made)
"""


def describe(folder: Path, count: int) -> None:
    kind = {"description": "", "dtype": "f32"}
    described = {
        "name": "eyes", "description": "", "keywords": [], "authors": [],
        "streams": {"gaze": {
            "name": "gaze", "description": "", "unit": "", "frequency": 1000000,
            "fields": {k: {"name": k, **kind} for k in ("c0", "c1")},
            "index": {"t": {"name": "t", **kind}},
        }},
        "groups": {"subject": {"description": "", "values": ["A"]}},
        "pattern": "csv://{subject}",
    }  # fmt: skip
    (folder / "eyes.collection.json").write_text(json.dumps(described))
    (folder / "eyes").mkdir()
    rows = [f"{i / 1e6:.6f},{i % 97},{i % 89}" for i in range(count)]
    (folder / "eyes" / "A.csv").write_text("\n".join(["t,c0,c1", *rows]) + "\n")
    rc = {"data_dir": str(folder), "meta_dir": str(folder)}
    (folder / ".streaminghubrc").write_text(json.dumps(rc))


def main() -> None:
    codec, count = sys.argv[2], int(sys.argv[3])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        describe(Path(name), count)
        os.chdir(name)
        server = subprocess.Popen([sys.executable, "-c", SERVER, str(port)])
        try:
            print(measured(port, codec, count))
        finally:
            server.kill()
            server.wait()
    sys.stdout.flush()
    os._exit(0)  # it leaves threads


def measured(port: int, codec: str, count: int) -> float:
    logging.disable(logging.CRITICAL)
    import streaminghub_datamux as dm

    deadline = time.monotonic() + 120
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        if time.monotonic() > deadline:
            raise TimeoutError("the original's server did not start")
        time.sleep(0.1)
    api = dm.RemoteAPI(rpc_name="websocket", codec_name=codec)
    api.connect("127.0.0.1", port)
    api.list_collections()
    sink = dm.Queue(timeout=20)
    api.replay_collection_stream("eyes", "gaze", {"subject": "A"}, sink)
    sink.get()  # starting and reading the file is not measured
    begin, last, got = time.perf_counter(), 0.0, 0
    while got < count - 1:
        # It loses items sent before its sink is registered: the last may never come.
        if not sink.get():
            break
        got, last = got + 1, time.perf_counter()
    return (last - begin) / max(1, got)


if __name__ == "__main__":
    main()
