"""FrameBufferServer: owns the memory of a frame buffer."""

from __future__ import annotations

import os
from typing import Any, NoReturn

from ataraxis._kernels.framebuffer import CONTROL_BYTES, SERVER_AT
from ataraxis._kernels.memory import UnlinkOnSignal, byte_held
from ataraxis.errors import SegmentExists, SegmentNotFound, StaleSegment
from ataraxis.framebuffer.ring import Ring
from ataraxis.labels import Labels
from ataraxis.shm import Context, Segment, files
from ataraxis.shm.context import ContextLike
from ataraxis.shm.header import SIZE_LIMIT, Kind, SegmentHeader

TRIES = 8


class FrameBufferServer(Ring):
    """Own the memory of a frame buffer, and allocate chunks of it.

    Parameters
    ----------
    key : str
        The text that clients attach by, unique in the context.
    size : int
        Bytes of the ring. All of it is backed by memory while the server runs.
    context : Context, str, Path or None
        The directory it lives in; None is this user's own.
    mode, group : int or str, optional
        Permission bits, 0o600 or 0o660 in a group context, and owning group.
    participants : int
        How many handles may be attached at a time, the server's included.

    Notes
    -----
    The memory is freed by `stop`, the end of the ``with`` block, the last reference or
    the program, and by a death of SIGINT, SIGTERM or SIGHUP; the application's handlers
    are not changed. After SIGKILL the next server of the key frees the memory.

    Examples
    --------
    >>> from ataraxis import FrameBufferClient, FrameBufferServer
    >>> with FrameBufferServer("doc server", 1000) as server:
    ...     with FrameBufferClient(server.get_key()) as client:
    ...         offset = server.allocate(5)
    ...         checksum = client.write(offset, b"hello")
    ...         client.read(offset, 5, checksum)
    b'hello'
    """

    def __init__(
        self,
        key: str,
        size: int,
        *,
        context: ContextLike = None,
        mode: int | None = None,
        group: str | int | None = None,
        participants: int = 128,
    ) -> None:
        self._set_key(key, context)
        self._size = self._number(size, False)
        if not 0 < self._size <= SIZE_LIMIT:
            raise ValueError(f"size must be 1 to {SIZE_LIMIT} bytes, got {size}")
        self._options: dict[str, Any] = {
            "mode": mode,
            "group": group,
            "participants": participants,
        }
        self._unlink_on_signal: UnlinkOnSignal | None = None

    def start(self) -> None:
        """Make the ring and serve the key; does nothing if started.

        Raises
        ------
        SegmentExists
            Another server, alive, serves the key.
        OSError
            Not enough memory; nothing is left behind.

        Notes
        -----
        The ring of a server that was killed is freed first. Its clients follow to the
        new ring.
        """
        if self._segment is not None:
            return
        context = Context.of(self._where)
        for _ in range(TRIES):
            self._reclaim(context)
            try:
                segment = Segment.create(
                    self._name,
                    Kind.FRAMEBUFFER,
                    Labels("u1", (self._size,), ("byte",)),
                    control_bytes=CONTROL_BYTES,
                    payload_bytes=self._size,
                    fill=self._fill,
                    context=context,
                    **self._options,
                )
            except SegmentExists:
                self._unbind()
                continue
            except BaseException:
                self._unbind()
                raise
            path = os.path.abspath(context.join(self._name))
            self._unlink_on_signal = UnlinkOnSignal(
                segment.participant, os.fsencode(path)
            )
            self._context = context
            return
        raise self._taken(context)

    def _fill(self, segment: Segment) -> None:
        """Serve the segment before it has a name."""
        self._bind(segment)
        self._serve()

    def stop(self) -> None:
        """Remove the name and free the memory; does nothing if not started.

        Attached clients can still read the chunks they have.
        """
        segment, self._segment = self._segment, None
        if segment is not None:
            segment.unlink()
        if self._unlink_on_signal is not None:
            self._unlink_on_signal.cancel()
        self._unlink_on_signal = None
        self._unbind()

    def get_key(self) -> str:
        """Return the key that clients attach by."""
        return self._key

    def __enter__(self) -> FrameBufferServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "started" if self.is_started else "not started"
        return f"<FrameBufferServer of {self._size} bytes, {state}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled: a ring has one server."""
        raise TypeError(
            "a FrameBufferServer cannot be pickled: send server.get_key(), and open a "
            "FrameBufferClient there"
        )

    def _reclaim(self, context: Context) -> None:
        """Remove the ring of a dead server; raise `SegmentExists` for a live one."""
        directory = context.open_directory()
        try:
            with files.find(directory, context, self._name) as found:
                header = SegmentHeader.unpack(
                    found.page, found.status.st_size, found.path
                )
                geometry = header.geometry
                word = os.pread(found.descriptor, 4, geometry.control + SERVER_AT)
                slot = int.from_bytes(word, "little") - 1
                if header.kind is not Kind.FRAMEBUFFER or (
                    slot >= 0 and byte_held(found.descriptor, slot) != 0
                ):
                    raise self._taken(context)
                files.take_name(
                    found.descriptor, directory, self._name, geometry.participants
                )
        except SegmentNotFound:
            pass
        finally:
            os.close(directory)

    def _taken(self, context: Context) -> SegmentExists:
        return SegmentExists(
            f"the key {self._key!r} is served already, in {context.path} "
            f"('ataraxis ls' shows the process, at {self._name}). Stop that server, or "
            "use another key: str(uuid.uuid4())"
        )

    def _revive(self, writes: bool) -> None:
        """Raise unless the ring can still be used without its name."""
        if self._segment is None:
            raise self._not_started()
        if self._segment.participant.is_inherited:
            raise StaleSegment(
                f"the server of {self._key!r} that this process was forked from has "
                "stopped: stop() it, and start one here"
            )
        if self._segment.meaning_of_name() == "another":
            raise StaleSegment(
                f"the key {self._key!r} now names another ring than this server's: "
                "stop() this server"
            )
