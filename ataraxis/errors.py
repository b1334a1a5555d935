"""Every exception and warning of ataraxis; nothing is raised from here.

Each class derives from `AtaraxisError` and from the built-in exceptions that fit, so
that callers of the systems ataraxis replaces keep catching what they always caught.
A message says what was asked, what was found and what to do.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from typing import Any


class AtaraxisError(Exception):
    """Base of every ataraxis exception."""


class SegmentExists(AtaraxisError, FileExistsError, RuntimeError):
    """The name is in use by a live segment."""


class _Hinted:
    """Which names come close is looked up when the error is shown.

    Not where it is the expected answer: that costs a listing of the context.
    """

    hint: Callable[[], str] | None = None

    def __str__(self) -> str:
        """Return the message, with what may have been meant."""
        text = super().__str__()
        return text if self.hint is None else f"{text} ({self.hint()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)


class SegmentNotFound(_Hinted, AtaraxisError, FileNotFoundError, RuntimeError):
    """No segment has that name: a wrong name, or the other side has not started."""


class SegmentTimeout(_Hinted, AtaraxisError, TimeoutError):
    """No segment had that name within the timeout."""


class UnsafeContext(AtaraxisError, PermissionError):
    """Other users can reach the context's directory, or put files there."""


class LayoutError(AtaraxisError, ValueError):
    """The file is not an ataraxis segment, is of another version, or is damaged."""


class NotConnectedError(AtaraxisError, ConnectionError, RuntimeError):
    """The handle is not connected, or was closed."""


class StaleSegment(AtaraxisError, ConnectionError):
    """The name now means another segment than the one this handle was opened on."""


class LockRecovered(AtaraxisError, RuntimeWarning):
    """A process died while it held the lock; the lock was recovered."""


class OwnerDied(AtaraxisError, RuntimeError):
    """A process died in the middle of a write; the data may be half written."""


class DataOverflow(AtaraxisError, IndexError):
    """More bytes than the slot holds."""


class AlreadySent(AtaraxisError, RuntimeError):
    """The loan is over: the buffer was sent."""


class ReleasedBuffer(AtaraxisError, RuntimeError):
    """The loan is over: the buffer was released."""


class EndOfStream(AtaraxisError, EOFError):
    """The producer has ended and every frame has been read."""


class EndOfInput(EndOfStream, TimeoutError):
    """Nothing more will come to a worker that asks for its next value.

    Also a `TimeoutError`: what a worker of uPipe does after its loop, behind
    ``except TimeoutError: break``, is done.
    """


class Lapped(AtaraxisError, BufferError):
    """The reader was too slow and frames were overwritten (strict readers only)."""


class FrameBufferTimeout(AtaraxisError, TimeoutError):
    """The ring came round before the chunk was read."""


class CorruptFrame(AtaraxisError, ValueError):
    """The bytes of a frame changed between its writer and its reader."""

    data: bytes | None = None
    """The bytes as they are, where the frame is gone with the error (`MemQ.lease`)."""


class LoggerError(AtaraxisError, ChildProcessError, RuntimeError):
    """The log could not be written; the message says which frames are safe."""


class ConfigError(AtaraxisError, ValueError):
    """The YAML does not fit the dataclass.

    Parameters
    ----------
    message : str
        What is shown: one line a problem.
    errors : iterable of ataraxis.config.ConfigProblem
        Every problem found, in the order of the file.

    Attributes
    ----------
    errors : tuple of ataraxis.config.ConfigProblem
        The same problems, each with path, line, field, expected, found and hint.
    """

    def __init__(self, message: str = "", errors: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class ConfigWarning(UserWarning):
    """A YAML file was read with ``strict=False`` and does not quite fit."""


class SourceFailed(AtaraxisError, RuntimeError):
    """A source of a rig gave no stream; `source` is its name in the rig."""

    source: str = ""


class SourceNotFound(AtaraxisError, LookupError):
    """No collection, node, stream, recording, task or kind of source has that name."""


class SourceLost(AtaraxisError, ConnectionError):
    """A live source went away, and did not come back within its patience."""


class RecordingError(AtaraxisError, ValueError):
    """A recording's file is damaged, or is not what its description says."""


class RemoteError(AtaraxisError, ConnectionError):
    """The other machine refused or failed."""


class TooExpensive(RemoteError):
    """The request costs more than a client may have; nothing was spent."""


class BadMessage(AtaraxisError, ValueError):
    """The other side sent what is no message of ours."""


class AccessDenied(AtaraxisError, PermissionError):
    """A wrong or missing token, an open door, or a secret that would be seen."""


class ProcessorError(AtaraxisError, RuntimeError):
    """User code raised in a worker process, or the process died.

    Attributes
    ----------
    processor : str
        Whose worker it was.
    worker : int
        Which of its workers, from 0.
    remote_traceback : str
        The traceback in the worker, or ''.
    """

    processor = ""
    worker = 0
    remote_traceback = ""


class PipeError(AtaraxisError, ExceptionGroup[Exception]):
    """A pipe failed; a group of the `ProcessorError` of its processors."""

    def derive(self, excs: Any, /) -> Any:
        """Keep the class when the group is split."""
        return PipeError(self.message, excs)


class LeaseLost(AtaraxisError, RuntimeError):
    """The lease ran out and another getter has the frame."""


class TooManyParticipants(AtaraxisError, OSError):
    """Every participant slot of the segment is held."""


class QueueFull(AtaraxisError, queue.Full):
    """The queue has no room (non-blocking calls only)."""

    count = 0
    """How many of several values found room."""


class QueueEmpty(AtaraxisError, queue.Empty):
    """The queue holds nothing (non-blocking calls only)."""


class PutTimeout(AtaraxisError, TimeoutError, queue.Full):
    """The queue had no room within the timeout."""

    count = 0
    """How many of several values found room."""


class GetTimeout(AtaraxisError, TimeoutError, queue.Empty):
    """Nothing came into the queue within the timeout."""


StreamExists = SegmentExists
StreamUnavailable = SegmentNotFound
