"""Every exception and warning of ataraxis; nothing is raised from here.

Each class derives from `AtaraxisError` and from the built-in exceptions that fit, so
that handlers written for the systems that ataraxis replaces still work. A message
names what was asked, what was found and what to do.
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
    """Similar names are looked up when the error is shown: that lists the context."""

    hint: Callable[[], str] | None = None

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.hint is None else f"{text} ({self.hint()})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)


class SegmentNotFound(_Hinted, AtaraxisError, FileNotFoundError, RuntimeError):
    """No segment has that name: it is wrong, or the other side has not started."""


class SegmentTimeout(_Hinted, AtaraxisError, TimeoutError):
    """No segment had that name within the timeout."""


class UnsafeContext(AtaraxisError, PermissionError):
    """Other users can reach the context's directory, or put files there."""


class LayoutError(AtaraxisError, ValueError):
    """The file is not an ataraxis segment, is of another version, or is damaged."""


class NotConnectedError(AtaraxisError, ConnectionError, RuntimeError):
    """The handle is not connected, or was closed."""


class StaleSegment(AtaraxisError, ConnectionError):
    """The name now means another segment than the one of this handle."""


class LockRecovered(AtaraxisError, RuntimeWarning):
    """A process died while it held the lock; the lock was recovered."""


class OwnerDied(AtaraxisError, RuntimeError):
    """A process died in the middle of a write; the data may be half written."""


class DataOverflow(AtaraxisError, IndexError):
    """The data have more bytes than the slot."""


class AlreadySent(AtaraxisError, RuntimeError):
    """The buffer was sent, and cannot be used any more."""


class ReleasedBuffer(AtaraxisError, RuntimeError):
    """The buffer was released, and cannot be used any more."""


class EndOfStream(AtaraxisError, EOFError):
    """The producer has ended and every frame has been read."""


class EndOfInput(EndOfStream, TimeoutError):
    """A worker asked for its next value, and its input has ended.

    Also a `TimeoutError`: workers of uPipe leave their loop by ``except TimeoutError:
    break``, and finish.
    """


class Lapped(AtaraxisError, BufferError):
    """The reader was too slow and frames were overwritten (strict readers only)."""


class FrameBufferTimeout(AtaraxisError, TimeoutError):
    """The ring was overwritten before the chunk was read."""


class CorruptFrame(AtaraxisError, ValueError):
    """The bytes of a frame changed between its writer and its reader."""

    data: bytes | None = None
    """The changed bytes, if the error has removed the frame (`MemQ.lease`)."""


class LoggerError(AtaraxisError, ChildProcessError, RuntimeError):
    """The log could not be written; the message states which frames are safe."""


class SpoolFull(LoggerError):
    """The spool of a mirrored stream has reached its bounds; nothing was lost."""


class ConfigError(AtaraxisError, ValueError):
    """The YAML does not fit the dataclass.

    Parameters
    ----------
    message : str
        The message: one line for each problem.
    errors : iterable of ataraxis.config.ConfigProblem
        All problems, in the order of the file.

    Attributes
    ----------
    errors : tuple of ataraxis.config.ConfigProblem
        The same problems, each with path, line, field, expected, found and hint.
    """

    def __init__(self, message: str = "", errors: Iterable[Any] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class ConfigWarning(UserWarning):
    """A YAML file was read with ``strict=False`` and does not fit exactly."""


class SourceFailed(AtaraxisError, RuntimeError):
    """A source of a rig gave no stream; `source` is its name in the rig."""

    source: str = ""


class OutputError(AtaraxisError, RuntimeError):
    """A command to an output was not sent, or was not answered as declared."""


class SourceNotFound(AtaraxisError, LookupError):
    """No collection, node, stream, recording, task or kind of source has that name."""


class SourceLost(AtaraxisError, ConnectionError):
    """A live source was lost, and did not return within its patience."""


class AmbiguousMatch(AtaraxisError, ValueError):
    """Two recordings of a signal match in several ways that fit equally well.

    Attributes
    ----------
    candidates : tuple of int
        The shifts that fit equally well, ns: time of the other clock minus time of the
        device, at the device's first edge.
    """

    candidates: tuple[int, ...] = ()


class RecordingError(AtaraxisError, ValueError):
    """A recording's file is damaged, or differs from its description."""


class RemoteError(AtaraxisError, ConnectionError):
    """The server refused a request or failed."""


class HostUnavailable(RemoteError):
    """Another host of the lab cannot be reached: its name, address, and the reason."""


class TooExpensive(RemoteError):
    """The request exceeds the limits of a client; it was not run."""


class BadMessage(AtaraxisError, ValueError):
    """The other side sent an invalid message."""


class AccessDenied(AtaraxisError, PermissionError):
    """A token is wrong or missing, access is unprotected, or a secret would leak."""


class ProcessorError(AtaraxisError, RuntimeError):
    """User code raised in a worker process, or the process died.

    Attributes
    ----------
    processor : str
        Name of the processor.
    worker : int
        Which of its workers, from 0.
    remote_traceback : str
        The traceback in the worker, or ''.
    """

    processor = ""
    worker = 0
    remote_traceback = ""


class PipeError(AtaraxisError, ExceptionGroup[Exception]):
    """A pipe failed; groups the `ProcessorError` of its processors."""

    def derive(self, excs: Any, /) -> Any:
        """Keep the class when the group is split."""
        return PipeError(self.message, excs)


class LeaseLost(AtaraxisError, RuntimeError):
    """The lease has expired and another getter has the frame."""


class GpuUnavailable(AtaraxisError, RuntimeError):
    """No GPU can be used: its driver, the GPU or a library is missing."""


class PinError(AtaraxisError, OSError):
    """Memory cannot be page-locked for a GPU; `errno` tells why."""


class TooManyParticipants(AtaraxisError, OSError):
    """All participant slots of the segment are in use."""


class QueueFull(AtaraxisError, queue.Full):
    """The queue has no room (non-blocking calls only)."""

    count = 0
    """How many of several values found room."""


class QueueEmpty(AtaraxisError, queue.Empty):
    """The queue is empty (non-blocking calls only)."""


class PutTimeout(AtaraxisError, TimeoutError, queue.Full):
    """The queue had no room within the timeout."""

    count = 0
    """How many of several values found room."""


class GetTimeout(AtaraxisError, TimeoutError, queue.Empty):
    """The queue stayed empty within the timeout."""


StreamExists = SegmentExists
StreamUnavailable = SegmentNotFound
