"""Boards on a serial line: samples in lines or frames, commands and their replies."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from numpy.typing import NDArray

from ataraxis.clock import now_ns
from ataraxis.datamux.catalog import pick
from ataraxis.datamux.description import Node, Stream
from ataraxis.datamux.held import Held, Known
from ataraxis.datamux.optional import need
from ataraxis.datamux.source import check_out
from ataraxis.datamux.sources.lines import Wire
from ataraxis.errors import ConfigError, SourceLost, SourceNotFound

_SLICE_S = 0.02
_KEPT = 1 << 20
_REPLIES = 1000


@dataclass(frozen=True)
class Exchange:
    """A command and what came back."""

    command: bytes
    """What was sent."""
    sent_ns: int
    """When it began to be handed to the port, monotonic ns: no reply is earlier."""
    reply: bytes | None
    """The line that came back, without its end; None if none was waited for."""
    replied_ns: int | None
    """When its last byte had come, monotonic ns."""


class Serial:
    """Driver of boards that a ``*.node.yaml`` file describes.

    Its uri says which port and protocol: ``serial:///dev/ttyACM0?baud=115200``, with
    the options of `ataraxis.datamux.sources.lines.Wire`; one stream among its outputs.
    """

    def nodes(self, timeout: float) -> list[Node]:
        """Return none: a port does not say what it sends."""
        return []

    def streams(self, node: Node, timeout: float) -> dict[str, Stream]:
        """Return what the node's file describes."""
        return node.outputs

    def source(
        self, node: Node, stream_id: str, attrs: Mapping[str, Any]
    ) -> SerialSource:
        """Return the source of a board."""
        stream = pick(node.outputs, stream_id, "stream", f"node {node.id!r}")
        stream = stream.copy()
        stream.attrs.update(id=stream_id, mode="proxy")
        parts = urlsplit(node.uri or "")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if not parts.path:
            raise ConfigError(
                f"node {node.id!r}: uri {node.uri!r}: expected serial:///dev/ttyACM0"
            )
        return SerialSource(unquote(parts.path), stream, options)


class SerialSource(Known):
    """One board: read samples from it, and send it commands, from any thread.

    Parameters
    ----------
    port : str
        The device.
    stream : Stream
        What it sends.
    options : mapping, optional
        ``baud``, and those of `Wire`.
    """

    def __init__(
        self, port: str, stream: Stream, options: Mapping[str, str] | None = None
    ) -> None:
        self._serial = need("serial", "serial", "a serial board")
        options = dict(options or {})
        try:
            self._baud = int(options.get("baud", 115200))
        except ValueError:
            raise ConfigError(f"serial: baud={options['baud']!r}: a number") from None
        self._where = port
        super().__init__(stream)
        self._wire = Wire(stream, options)
        self._port = Held[Any](f"serial port {port!r}", lambda made: made.close())
        self._reading = threading.Lock()
        self._came = threading.Condition()
        self._rows: deque[tuple[int, float, int, Any]] = deque(maxlen=_KEPT)
        self._replies: deque[tuple[int, bytes]] = deque(maxlen=_REPLIES)
        self._number = -1
        self._failure: OSError | None = None
        self.malformed = 0
        """Lines or frames that were thrown away."""

    def open(self) -> None:
        """Open the port, for nobody else."""
        self.close()
        try:
            port = self._serial.Serial(
                self._where, self._baud, timeout=_SLICE_S, exclusive=True
            )
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise SourceNotFound(
                f"serial port {self._where!r} does not open: {error}"
            ) from error
        self._wire.reset()
        self._rows.clear()
        self._replies.clear()
        self._number, self._failure = -1, None
        self._port.hold(port)

    def read_into(
        self,
        out: NDArray[Any],
        stamps: NDArray[Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> int:
        """Fill rows with the samples that came; see `Source.read_into`."""
        check_out(out, self._labels)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._rows:
            if not self._pump(deadline):
                return 0
        got = min(len(out), len(self._rows))
        for i in range(got):
            arrived, device_s, number, values = self._rows.popleft()
            out[i] = values
            if stamps is not None:
                stamps[i] = (arrived, device_s, number)
        return got

    def command(self, data: bytes, *, timeout: float | None = 1.0) -> Exchange:
        """Send a command, and wait for the next line that is no sample.

        Parameters
        ----------
        data : bytes
            Sent as it is: with its line end.
        timeout : float or None
            Longest wait for the reply, s; 0 does not wait for one.

        Returns
        -------
        Exchange
            Both, with their times.

        Raises
        ------
        TimeoutError
            Nothing came back in time.
        SourceLost
            The board is gone.
        """
        port = self._port.get()
        with self._came:
            self._replies.clear()
        # Before the write: the reply may be here before the write has returned.
        sent_ns = now_ns()
        try:
            port.write(data)
            port.flush()
        except OSError as error:
            raise self._gone(error) from error
        if timeout == 0:
            return Exchange(data, sent_ns, None, None)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._replies:
            if not self._pump(deadline):
                raise TimeoutError(
                    f"serial port {self._where!r}: no reply to {data!r} in {timeout} s"
                )
        replied_ns, reply = self._replies.popleft()
        return Exchange(data, sent_ns, reply, replied_ns)

    def _gone(self, error: OSError) -> SourceLost:
        self._failure = SourceLost(f"serial port {self._where!r} went away: {error}")
        return SourceLost(str(self._failure))

    def _pump(self, deadline: float | None) -> bool:
        """Read what is there, or wait for who reads; False if the time is over.

        Reader and commander are two threads and the port is one: whoever holds it
        reads for both.
        """
        left = _SLICE_S if deadline is None else deadline - time.monotonic()
        if self._failure is not None:
            raise SourceLost(str(self._failure))
        if not self._reading.acquire(blocking=False):
            with self._came:
                self._came.wait(min(max(left, 0.0), _SLICE_S))
            return left > 0
        try:
            port = self._port.get()
            port.timeout = min(max(left, 0.0), _SLICE_S)
            data = port.read(max(1, port.in_waiting))
        except (OSError, TypeError) as error:  # TypeError: closed meanwhile
            if not self._port.is_open:
                raise self._gone(OSError("closed")) from error
            raise self._gone(OSError(str(error))) from error
        finally:
            self._reading.release()
        if data:
            self._sort(data, now_ns())
        return bool(data) or left > 0

    def _sort(self, data: bytes, arrived_ns: int) -> None:
        made = self._wire.take(data)
        self.malformed += made.malformed
        with self._came:
            for device_s, number, values in made.rows:
                self.lost += self._wire.missed(self._number, number)
                self._number = number
                self.lost += len(self._rows) == _KEPT
                self._rows.append((arrived_ns, device_s, number, values))
            self._replies.extend((arrived_ns, reply) for reply in made.replies)
            self._came.notify_all()

    def close(self) -> None:
        """Close the port."""
        self._port.close()
