"""A client of a server: its connection, and how it asks for lists and streams."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from ssl import SSLContext
from typing import Any, TypeVar

from ataraxis.clock import Offset, now_ns
from ataraxis.datamux.ack import Listing, StreamAck
from ataraxis.datamux.remote.access import identity_of
from ataraxis.datamux.remote.answer import answered
from ataraxis.datamux.remote.codec import codec_of
from ataraxis.datamux.remote.describing import unpacked
from ataraxis.datamux.remote.link import Link
from ataraxis.datamux.remote.steering import RemoteTimeline, steer_of
from ataraxis.datamux.remote.transport import transport_of
from ataraxis.datamux.sink import BUFFER, Policy, sink_of
from ataraxis.datamux.task import Deliver, Task
from ataraxis.datamux.tasks import Tasks
from ataraxis.datamux.timeline import Timeline
from ataraxis.datamux.util import gen_randseq, identity, prefix
from ataraxis.errors import NotConnectedError

T = TypeVar("T")
U = TypeVar("U")
Transform = Callable[[Any], Any] | str


class Client(Tasks):
    """Connects to a server; a part of `RemoteAPI`, which see."""

    def __init__(self, rpc_name: str = "websocket", codec_name: str = "frame") -> None:
        super().__init__()
        self._transport = transport_of(rpc_name)
        self._codec = codec_of(codec_name)
        self._link: Link | None = None

    # ---- the connection

    def connect(
        self,
        server_host: str,
        server_port: int,
        *,
        token: str | None = None,
        tls: bool | str | Path | SSLContext | None = None,
        patience: float = 30.0,
        heartbeat_s: float = 5.0,
    ) -> Any:
        """Connect to a server; awaitable.

        Parameters
        ----------
        server_host, server_port
            Where it is.
        token : str, optional
            The server's token; ``$ATARAXIS_TOKEN`` if not given.
        tls : bool, str, Path or SSLContext, optional
            The file of the server's certificate, or True for authorities that this
            machine trusts; by default True beyond this machine.
        patience : float
            How long to try to come back when the connection breaks, s. Streams go on
            where they were if the server still has what is missing, else they end:
            'lost'.
        heartbeat_s : float
            How often to ask whether the server is there; it is gone after three in
            vain.

        Raises
        ------
        AccessDenied
            The token is wrong, or would be seen on its way.
        RemoteError, OSError
            The server refuses, or is not there.
        """
        self.disconnect()
        identity = identity_of(server_host, token, tls)
        link = Link(
            self._transport, self._codec, identity, server_host, int(server_port),
            patience=patience, heartbeat_s=heartbeat_s,
        )  # fmt: skip
        self._link = link
        weakref.finalize(self, link.retire).atexit = False
        opened = link.open()
        opened.add_done_callback(lambda f: link.retire() if f.exception() else None)
        return answered(opened)

    def disconnect(self) -> None:
        """Leave: every stream ends here, and stops there. Twice is fine."""
        link, self._link = self._link, None
        if link is not None:
            self.stop()
            link.close()

    def __exit__(self, *exc: object) -> None:
        """Leave."""
        self.disconnect()

    def _linked(self) -> Link:
        if self._link is None:
            raise NotConnectedError(
                "not connected: call connect(server_host=..., server_port=...) first"
            )
        return self._link

    @property
    def transforms(self) -> list[str]:
        """Names of the transforms that the server has."""
        return [str(name) for name in self._linked().welcome.get("transforms", [])]

    def measure_offset(self, round_trips: int = 8) -> Offset:
        """Measure how far the server's monotonic clock is ahead; waits.

        Times of samples stay those of the server: this is to be kept beside them.

        Parameters
        ----------
        round_trips : int
            How many; the shortest counts.

        Returns
        -------
        Offset
            In ns, with its bound.
        """
        link, samples = self._linked(), []
        for _ in range(round_trips):
            before = now_ns()
            there = int(link.request("time", {}).result())
            samples.append((before, there, there, now_ns()))
        return Offset.from_round_trips(samples, link.place)

    # ---- asking

    def _listed(self, call: str, kind: type[T], **arguments: Any) -> Any:
        def listing(found: Any) -> Listing[T]:
            return Listing(unpacked(kind, item) for item in found)

        return answered(then(self._linked().request(call, arguments), listing))

    def _started(
        self,
        call: str,
        arguments: Mapping[str, Any],
        sink: Any,
        transform: Transform,
        deliver: Deliver,
        policy: Policy = "block",
        buffer: int = BUFFER,
        timeline: Timeline | None = None,
    ) -> Future[StreamAck]:
        """Ask for a stream; everything here is ready before the request goes out."""
        link = self._linked()
        asked = dict(arguments)
        if isinstance(transform, str):
            asked["transform"] = transform
        if timeline is not None:
            if not isinstance(timeline, RemoteTimeline):
                raise TypeError(
                    "a clock of this machine does not pace another: share that of the "
                    "first stream, timeline=ack.task.timeline"
                )
            asked["timeline"] = timeline.number
        made = sink_of(sink, policy, buffer)
        inlet = link.inlet()
        applied = identity if isinstance(transform, str) else transform
        task = Task(prefix + gen_randseq(), inlet, made, deliver, applied)

        def begin(answer: Any) -> StreamAck:
            if answer.get("is_paced"):
                clock = timeline or RemoteTimeline(
                    inlet.number, steer_of(link, inlet), asked.get("speed", 1.0),
                    asked.get("paused", False),
                )  # fmt: skip
                inlet.timeline = clock
                inlet.seek = clock.seek
            return self._begin(task)

        return then(link.start(call, asked, inlet), begin)


def then(future: Future[T], convert: Callable[[T], U]) -> Future[U]:
    """Return a future of what becomes of another's result."""
    made: Future[U] = Future()

    def pass_on(done: Future[T]) -> None:
        try:
            made.set_result(convert(done.result()))
        except BaseException as error:  # it is the future's, whatever it is
            made.set_exception(error)

    future.add_done_callback(pass_on)
    return made
