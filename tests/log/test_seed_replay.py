"""The seed's own logging program, by the original and by ours, replayed alike."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import ataraxis.datamux as dm

PROGRAM = """
    import sys
    from pathlib import Path
    import numpy as np
    from {package} import DataLogger, LogPackage

    if __name__ == "__main__":
        logger = DataLogger(Path(sys.argv[1]), instance_name="rig")
        logger.start()
        onset = np.array([1_700_000_000_000_000], np.uint64).view(np.uint8)
        logger.input_queue.put(LogPackage(np.uint8(7), np.uint64(0), onset))
        for k in range(1, 200):
            data = np.array([k % 256, 3 * k % 256, 255 - k % 256], np.uint8)
            logger.input_queue.put(LogPackage(np.uint8(7), np.uint64(500 * k), data))
        logger.stop()
        {after}
"""
COLLECTION = """
name: logs
pattern: log://{session}/rig_data_log{end}
streams:
  "7":
    name: lick
    fields:
      "7": {dtype: u8, shape: [3]}
"""


def original() -> str:
    """An interpreter with ataraxis-data-structures 3.1.1, or skip."""
    named = os.environ.get("ATARAXIS_ORIGINALS", "").split(os.pathsep)
    version = "from importlib.metadata import version as v; print(v('{}'))"
    question = version.format("ataraxis-data-structures")
    for python in (sys.executable, *filter(None, named)):
        done = subprocess.run([python, "-c", question], capture_output=True, text=True)
        if done.stdout.strip() == "3.1.1":
            return python
    pytest.skip("no ataraxis-data-structures 3.1.1; ATARAXIS_ORIGINALS names Pythons")


def record(python: str, package: str, folder: Path, after: str = "pass") -> None:
    text = textwrap.dedent(PROGRAM).format(package=package, after=after)
    script = folder / "program.py"
    folder.mkdir(parents=True)
    script.write_text(text)
    subprocess.run(
        [python, script, folder], check=True, capture_output=True, timeout=300
    )
    script.unlink()


def replayed(api: dm.API, session: str) -> tuple[list[float], list[list[int]]]:
    sink: queue.Queue = queue.Queue()
    ack = api.replay_collection_stream(
        "logs", "7", {"session": session}, sink, rate_limit=False
    )
    times, values = [], []
    while (item := sink.get(timeout=60)) != dm.END_OF_STREAM:
        times.append(next(iter(item["index"].values())))
        values.append(item["value"]["7"].tolist())
    assert item.reason == "completed", item.error
    ack.wait(10)
    return times, values


@pytest.mark.parametrize("is_archived", [False, True], ids=["entries", "archives"])
def test_a_seed_program_replays_alike(tmp_path: Path, is_archived: bool) -> None:
    """Values and stamps of both are those that the program gave, and the clock's."""
    python = original()
    compress = (
        "logger.compress_logs(remove_sources=True, max_workers=1)"
        if is_archived
        else "pass"
    )
    record(python, "ataraxis_data_structures", tmp_path / "logs" / "theirs", compress)
    record(sys.executable, "ataraxis", tmp_path / "logs" / "ours", compress)
    for owner in ("theirs", "ours"):
        left = {p.suffix for p in (tmp_path / "logs" / owner).rglob("*") if p.is_file()}
        assert left == ({".npz"} if is_archived else {".npy"})
    (tmp_path / "logs.collection.yaml").write_text(
        COLLECTION.replace("{end}", "/7_log" if is_archived else "")
    )
    api = dm.API(data_dir=tmp_path, meta_dir=tmp_path)
    sessions = [s.attrs["session"] for s in api.list_collection_streams("logs")]
    assert len(sessions) == 2
    (times, values), (other_times, other_values) = (replayed(api, s) for s in sessions)
    expected = [[k % 256, 3 * k % 256, 255 - k % 256] for k in range(1, 200)]
    assert values == other_values == expected
    assert times == other_times
    np.testing.assert_allclose(np.diff(times), 500e-6, atol=1e-9)
