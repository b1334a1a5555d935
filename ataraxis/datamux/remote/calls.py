"""What a client may ask of a server: each call, what it takes, and who does it.

Names and types are looked at here; what a value means is checked by the API itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from ataraxis.clock import now_ns
from ataraxis.datamux.ack import StreamAck
from ataraxis.datamux.api import API
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Stream
from ataraxis.datamux.faults import Faults
from ataraxis.datamux.remote.codec import Message
from ataraxis.datamux.remote.describing import packed, unpacked, unpacked_signals
from ataraxis.datamux.task import Task
from ataraxis.errors import BadMessage

Types = tuple[type, ...]
_NONE = type(None)
_TEXT, _FLAG, _NUMBER = (str,), (bool,), (int, float)
_MAYBE = (int, float, _NONE)
_ATTRS = (dict,)
_SAMPLE_BYTES = 64 * 2**20
_PACED: dict[str, Types] = {
    "rate_limit": _FLAG, "speed": _NUMBER, "block": _MAYBE, "timeline": (int, _NONE),
}  # fmt: skip
_REPLAY: dict[str, Types] = {
    "collection_id": _TEXT, "stream_id": _TEXT, "attrs": _ATTRS, "strict_time": _FLAG,
    "use_relative_ts": _FLAG, "start": _MAYBE, "stop": _MAYBE, "loop": (bool, int),
    "paused": _FLAG, "transform": _TEXT, **_PACED,
}  # fmt: skip
STARTS: dict[str, dict[str, Types]] = {
    "replay_collection_stream": _REPLAY,
    "publish_collection_stream": _REPLAY,
    "proxy_live_stream": {
        "node_id": _TEXT, "stream_id": _TEXT, "attrs": _ATTRS, "rate_limit": _FLAG,
        "strict_time": _FLAG, "use_relative_ts": _FLAG, "block": (int, _NONE),
        "patience": _MAYBE, "transform": _TEXT,
    },
    "simulate_stream": {
        "source": (str, dict), "stream_id": _TEXT, "attrs": (dict, _NONE),
        "signals": (dict, _NONE), "guided": _FLAG, "seed": (int,),
        "faults": (dict, _NONE), "duration": _MAYBE, "transform": _TEXT, **_PACED,
    },
}  # fmt: skip
"""Calls that start a stream: what each takes."""
LISTS: dict[str, tuple[dict[str, Types], Callable[[API, Message], Any]]] = {
    "list_collections": ({}, lambda api, _: api.list_collections()),
    "list_collection_streams": (
        {"collection_id": _TEXT},
        lambda api, a: api.list_collection_streams(a["collection_id"]),
    ),
    "list_live_nodes": ({}, lambda api, _: api.list_live_nodes()),
    "list_live_streams": (
        {"node_id": _TEXT},
        lambda api, a: api.list_live_streams(a["node_id"]),
    ),
    "time": ({}, lambda api, _: now_ns()),
}
"""Calls that answer at once: what each takes, and who answers."""
STEERS: dict[str, tuple[dict[str, Types], Callable[[Task, Message], Any]]] = {
    "pause": ({}, lambda task, _: task.pause()),
    "resume": ({}, lambda task, _: task.resume()),
    "seek": ({"at_s": _NUMBER}, lambda task, a: task.seek(a["at_s"])),
    "set_speed": ({"speed": _NUMBER}, lambda task, a: _set_speed(task, a["speed"])),
    "position": ({}, lambda task, _: _timeline(task).position_s),
    "statistics": ({}, lambda task, _: statistics(task)),
}
"""Calls about a stream that runs: what each takes, and what it does."""


def _timeline(task: Task) -> Any:
    if task.timeline is None:
        raise TypeError("the stream is not paced")
    return task.timeline


def _set_speed(task: Task, speed: float) -> None:
    _timeline(task).speed = speed


def statistics(task: Task) -> Message:
    """Return what a task has done, as plain values."""
    found = asdict(task.statistics())
    lateness = found["lateness"]
    # An infinite error of the slope: JSON has no such number.
    found["lateness"] = {
        k: (None if isinstance(v, float) and not math.isfinite(v) else v)
        for k, v in lateness.items()
    }
    return {**found, "reconnects": list(found["reconnects"])}


def checked_arguments(
    call: str, takes: Mapping[str, Types], given: Any, block_samples: int = 0
) -> Message:
    """Return the arguments of a call if they are of the right names and types.

    Raises
    ------
    BadMessage
        They are not.
    """
    if not isinstance(given, dict):
        raise BadMessage(f"{call}: expected arguments as an object")
    for name, value in given.items():
        if name not in takes:
            raise BadMessage(f"{call} takes no {str(name)[:40]!r}: {[*takes]}")
        if type(value) not in takes[name]:
            wanted = " or ".join(kind.__name__ for kind in takes[name])
            raise BadMessage(f"{call}: {name}={str(value)[:40]!r}: expected {wanted}")
    block = given.get("block")
    if block_samples and isinstance(block, (int, float)) and block > block_samples:
        raise BadMessage(f"{call}: block={block}: at most {block_samples}")
    return given


def start(
    api: API,
    call: str,
    arguments: Message,
    sink: Any,
    transform: Callable[[Any], Any] | None,
    timeline: Any,
) -> StreamAck:
    """Start a stream into a sink; the acknowledgement of the API."""
    more = {k: v for k, v in arguments.items() if k not in ("transform", "timeline")}
    if transform is not None:
        more["transform"] = transform
    if timeline is not None:
        more["timeline"] = timeline
    try:
        if call == "publish_collection_stream":
            return api.publish_collection_stream(**more)
        if call == "replay_collection_stream":
            return api.replay_collection_stream(sink=sink, deliver="block", **more)
        if call == "proxy_live_stream":
            return api.proxy_live_stream(sink=sink, deliver="block", **more)
        return api.simulate_stream(sink=sink, deliver="block", **_simulated(more))
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise BadMessage(f"{call}: {error}") from error


def _simulated(more: Message) -> Message:
    if isinstance(more.get("source"), dict):
        stream = unpacked(Stream, more["source"])
        if stream.fields and stream.labels().nbytes > _SAMPLE_BYTES:
            raise BadMessage(f"simulate_stream: a sample above {_SAMPLE_BYTES} bytes")
        more["source"] = stream
    if more.get("faults") is not None:
        more["faults"] = unpacked(Faults, more["faults"])
    if more.get("signals") is not None:
        more["signals"] = unpacked_signals(more["signals"])
    return more


def listed(api: API, call: str, given: Any) -> Any:
    """Answer a call that asks for what there is."""
    takes, answer = LISTS[call]
    arguments = checked_arguments(call, takes, given)
    missing = [name for name in takes if name not in arguments]
    if missing:
        raise BadMessage(f"{call} needs {missing}")
    return packed(answer(api, arguments))


def known(call: Any) -> str:
    """Return the name of a call if there is one of that name.

    Raises
    ------
    SourceNotFound
        There is none.
    """
    names = {name: name for name in (*STARTS, *LISTS, *STEERS, "stop")}
    found: str = pick(names, str(call)[:80], "call", "this server")
    return found
