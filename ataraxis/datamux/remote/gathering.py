"""A recording that was fetched from a server, put together from its blocks."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import numpy as np

from ataraxis.datamux.ack import StreamAck
from ataraxis.datamux.block import Block
from ataraxis.datamux.description import Stream
from ataraxis.datamux.end import End
from ataraxis.datamux.recording import Recording
from ataraxis.datamux.remote.describing import unpacked
from ataraxis.errors import SourceLost


def recording_from(
    started: Future[StreamAck], listed: Future[Any], stream_id: str, items: list[Any]
) -> Future[Recording]:
    """Return a future of the recording whose blocks come into a list.

    Parameters
    ----------
    started : Future of StreamAck
        Of the replay that fetches it.
    listed : Future
        Of the streams of its collection, which describe one without samples.
    stream_id : str
        Which stream it is.
    items : list
        Where blocks come, and then the end.
    """
    made: Future[Recording] = Future()

    def ended(end: End) -> None:
        try:
            if end.reason != "completed":
                raise end.error or SourceLost("the recording was not fetched whole")
            blocks = [item for item in items if isinstance(item, Block)]
            made.set_result(_joined(blocks) if blocks else _empty(listed, stream_id))
        except Exception as error:  # it is the future's, whatever it is
            made.set_exception(error)

    def begun(done: Future[StreamAck]) -> None:
        error = done.exception()
        if error is not None:
            made.set_exception(error)
            return
        task = done.result().task
        assert task is not None
        task.call_when_done(ended)

    started.add_done_callback(begun)
    return made


def _joined(blocks: list[Block]) -> Recording:
    stream = blocks[0].stream
    columns = {k: np.concatenate([b.values[k] for b in blocks]) for k in stream.fields}
    for key in blocks[0].index:
        columns[key] = np.concatenate([b.index[key] for b in blocks])
    if not blocks[0].index and not stream.rate_hz:
        columns[stream.time] = np.concatenate([b.t for b in blocks])
    return Recording.of(stream, columns, f"stream {stream.id!r} of the server")


def _empty(listed: Future[Any], stream_id: str) -> Recording:
    streams = [unpacked(Stream, item) for item in listed.result(30)]
    stream = next(s for s in streams if s.id == stream_id)
    columns = {
        name: np.empty((0, *field.shape), field.numpy_dtype)
        for name, field in {**stream.index, **stream.fields}.items()
    }
    return Recording.of(stream, columns, f"stream {stream_id!r} of the server")
