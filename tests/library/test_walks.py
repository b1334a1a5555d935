"""architecture.md lists every room, and its walks are those that are taken."""

from __future__ import annotations

import queue
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import walk_trace
import workers_walks
from places import ROOT

from ataraxis import DataLogger, LogPackage, Pipe, Processor, Producer, Session
from ataraxis.datamux import API, open_recordings
from ataraxis.session.rig import Rig, RigRecorder, RigSource
from ataraxis.stream import Consumer

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
HOUSE = ROOT / "ataraxis"
STEP = re.compile(r"^\d+\. `([\w/.]+)` `([\w.]+)`", re.M)


def walk(title: str) -> list[tuple[str, str]]:
    """Return the steps of a walk, each a file and a function."""
    part = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    steps = STEP.findall(part)
    assert steps
    return steps


def check(title: str, directory: Path) -> None:
    """Each step is there, and taken in this order by one of the processes."""
    traces = [
        [tuple(line.split(" ", 1)) for line in path.read_text().splitlines()]
        for path in directory.glob("*.txt")
    ]
    at = [0] * len(traces)
    for file, name in walk(title):
        if file.endswith(".pyx"):
            text = (HOUSE / file).read_text(encoding="utf-8")
            assert re.search(rf"\b{name.split('.')[-1]}\(", text), (file, name)
            continue
        found = [
            (k, trace.index((file, name), at[k]))
            for k, trace in enumerate(traces)
            if (file, name) in trace[at[k] :]
        ]
        assert found, f"{title}: {file} {name} is not called after the steps before it"
        for k, place in found:
            at[k] = place


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Trace this process, and those that it starts, into a directory."""
    site, traces = tmp_path / "site", tmp_path / "traces"
    site.mkdir()
    traces.mkdir()
    (site / "sitecustomize.py").write_text(
        f"import os, walk_trace\nwalk_trace.start(os.environ['{walk_trace.PLACE}'])\n"
    )
    path = f"{site}:{ROOT / 'tests' / 'support'}:{ROOT / 'tests' / 'programs'}"
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv(walk_trace.PLACE, str(traces))
    try:
        yield traces
    finally:
        walk_trace.stop()


def test_the_page_lists_the_rooms_that_there_are() -> None:
    tree = PAGE.split("## The rooms\n")[1].split("\n## ")[0]
    listed = re.findall(r"^\| `([\w.]+)` \|", tree, re.M)
    there = {p.name for p in HOUSE.iterdir() if (p / "__init__.py").exists()}
    there |= {p.name for p in HOUSE.glob("*.py")} - {"__init__.py"}
    assert sorted(listed) == sorted(there)


def test_a_frame_is_sent(traced: Path) -> None:
    frame = np.arange(8.0)
    with Producer("walk", 64, 8, shape=(8,), dtype="f8") as producer:
        consumer = Consumer("walk")
        producer.send(frame)
        consumer.receive(timeout=10)
        walk_trace.start(traced)
        producer.send(frame)
        received = consumer.receive(timeout=10).array
        calls = walk_trace.stop()
        assert received.tolist() == frame.tolist()
        del received
        consumer.close()
    assert calls == {}, "no Python function runs between the two"
    check("A frame is sent", traced)


def test_an_entry_is_logged(traced: Path, tmp_path: Path) -> None:
    walk_trace.start(traced)
    log = DataLogger(tmp_path, layout="journal")
    log.start()
    log.input_queue.put(LogPackage(1, 5, np.zeros(4, np.uint8)))
    log.stop()
    walk_trace.stop()
    check("An entry is logged", traced)


def test_a_value_goes_through_a_pipe(traced: Path) -> None:
    results: list[int] = []
    pipe = Pipe("walk")
    pipe.add(Processor("next", func=workers_walks.add_one))
    walk_trace.start(traced)
    with pipe.run(range(100), results) as run:
        run.wait(60)
    walk_trace.stop()
    assert results == list(range(1, 101))
    check("A value goes through a pipe", traced)


def test_a_plain_function_costs_few_python_calls() -> None:
    """A worker makes at most ten Python calls a value, with the function's own."""
    pipe = Pipe("walk")
    pipe.add(Processor("counting", func=workers_walks.Counting))
    results: list[float] = []
    with pipe.run(range(3 * workers_walks.COUNTED), results) as run:
        run.wait(60)
    calls = [r for r in results if isinstance(r, float)]
    assert len(calls) == 1
    assert 1 <= calls[0] <= 10


def test_a_recording_is_replayed(traced: Path, tmp_path: Path) -> None:
    path = tmp_path / "sine.npz"
    np.savez(path, t=np.arange(100) / 1000, x=np.sin(np.arange(100)))
    sink: queue.Queue[object] = queue.Queue()
    walk_trace.start(traced)
    (recording,) = open_recordings(path).values()
    API().replay(recording, sink, speed=10).wait(60)
    walk_trace.stop()
    assert sink.qsize() == 101
    check("A recording is replayed", traced)


def test_a_rig_runs(traced: Path, tmp_path: Path) -> None:
    rig = Rig(
        {"probe": RigSource("sim", "probe", samples=100)},
        recorders=[RigRecorder(process=True)],
    )
    walk_trace.start(traced)
    with Session("walk", directory=tmp_path / "session") as session:
        session.start(rig).wait(1)
    walk_trace.stop()
    assert session.verdict is not None
    check("A rig runs", traced)
