"""Collections on disk for the tests of DataMux, and readers of its sinks."""

from __future__ import annotations

import asyncio
import json
import queue
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.datamux import END_OF_STREAM, Field, Recording, Stream


def gaze_json(**changes: Any) -> dict[str, Any]:
    """A collection in StreamingHub's format."""
    field = {"description": "", "dtype": "f32"}
    made = {
        "$schema": "https://raw.githubusercontent.com/nirdslab/streaminghub/master/"
        "dfds/collection.jsonschema",
        "name": "eyes",
        "description": "Eye movements",
        "keywords": ["gaze"],
        "authors": [{"name": "A", "affiliation": "B", "email": "a@b.c"}],
        "streams": {
            "gaze": {
                "name": "gaze position",
                "description": "",
                "unit": "px",
                "frequency": 100,
                "fields": {
                    "x": {"name": "left x", **field},
                    "y": {"name": "left y", **field},
                },
                "index": {"t": {"name": "timestamp", **field}},
            }
        },
        "groups": {
            "subject": {"description": "", "values": ["A", "B"]},
            "session": {"description": "", "values": ["1"]},
            "task": {"description": "", "values": ["1", "2"]},
        },
        "pattern": "csv://{subject}_{session}_{task}",
    }
    return {**made, **changes}


def write_collection(folder: Path, name: str = "eyes", **changes: Any) -> Path:
    """Write its description; return its folder of recordings."""
    made = gaze_json(name=name, **changes)
    (folder / f"{name}.collection.json").write_text(json.dumps(made))
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def write_csv(path: Path, n: int = 20, rate: float = 100.0, header: str = "t,x,y"):
    """Write a recording; x counts, y is twice that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{i / rate:.6f},{i},{2 * i}" for i in range(n)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def counting(n: int = 100, rate: float | None = 100.0, fields: int = 2) -> Recording:
    """A recording whose values are the sample numbers."""
    names = [f"c{i}" for i in range(fields)]
    stream = Stream(
        "count", frequency=rate, fields={k: Field(dtype="i32") for k in names}
    )
    values = np.repeat(np.arange(n, dtype="i4")[:, None], fields, axis=1)
    columns = {name: values[:, i] for i, name in enumerate(names)}
    if rate is None:
        columns["t"] = np.arange(n) * 0.01
    return Recording.of(stream, columns)


def drained(sink: Any, timeout: float = 20.0) -> tuple[list[Any], Any]:
    """Read a thread's queue to its end: the items, and the end."""
    items = []
    while True:
        item = sink.get(timeout=timeout) if not _is_simple(sink) else sink.get()
        if item == END_OF_STREAM:
            return items, item
        items.append(item)


def _is_simple(sink: Any) -> bool:
    return not hasattr(sink, "put_nowait") and not isinstance(sink, queue.SimpleQueue)


async def drained_async(sink: asyncio.Queue[Any], timeout: float = 20.0):
    """Read an asyncio queue to its end: the items, and the end."""
    items = []
    while True:
        item = await asyncio.wait_for(sink.get(), timeout)
        if item == END_OF_STREAM:
            return items, item
        items.append(item)
