"""What a worker says and hears: connect, emit, get; awaited, as uPipe has them.

The plain forms are those of the `Port` that `Talk.open` returns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ataraxis.errors import NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline import port as ports
from ataraxis.pipeline.port import EMIT_WAIT_S, Port

_T = TypeVar("_T")
_SLICE_S = 0.01


class Talk:
    """The half of `Processor` and `Worker` that is used inside a worker."""

    _name: str
    _port: Port | None = None

    def open(self) -> Port:
        """Connect, without asyncio: the port of this worker.

        Raises
        ------
        NotConnectedError
            This process is no worker of a processor of that name.
        """
        port = ports.current()
        if port is None:
            raise NotConnectedError(
                f"processor {self._name!r}: this process is no worker of a pipe; "
                "connect() is for the function that Pipe.start() runs"
            )
        if port.name != self._name:
            raise NotConnectedError(
                f"this is a worker of processor {port.name!r}, not {self._name!r}"
            )
        self._port = port
        port.say_ready()
        return port

    async def connect(self) -> None:
        """Take part in the pipe, in a worker. Raises as `open`."""
        self.open()

    @property
    def connected(self) -> bool:
        """Whether `connect` was called."""
        return self._port is not None

    def _connected(self) -> Port:
        if self._port is None:
            raise NotConnectedError(
                f"processor {self._name!r} is not connected: await connect() first, in "
                "the function that its worker runs"
            )
        return self._port

    async def emit(self, value: Any, d_type: DType | int | None = None) -> bool:
        """Hand a value to every child, or to none.

        Parameters
        ----------
        value : object
            As for `Frame.from_value`. Copied.
        d_type : DType, optional
            How to send it, if not as itself.

        Returns
        -------
        bool
            False: there was no room within 0.5 s; try again.

        Raises
        ------
        TypeError, ValueError
            No frame carries such a value, or not as `d_type`.
        EndOfStream
            The children have finished; nobody will have it. Left alone, it ends this
            worker in good order.
        """
        return await emitted(self._connected().emit, value, d_type)

    async def emit_sync(
        self,
        value: Any,
        d_type: DType | int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Hand a value to every child, however long it takes to have room.

        False only after `timeout`, s. Otherwise as `emit`.
        """
        port = self._connected()
        if port.emit(value, d_type, 0):
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        return await patiently(
            lambda wait: port.emit(value, d_type, wait), deadline, False
        )

    async def get(self) -> Any:
        """Return the next value, or None if there is none now.

        It is acknowledged by the next `get`, or when the worker ends in good order; if
        the worker dies before, another one has it. Raises as `get_sync`.
        """
        try:
            return self._connected().get(0)
        except TimeoutError:
            return None

    async def get_sync(self, timeout: float | None = 5) -> Any:
        """Return the next value; acknowledged as by `get`.

        Raises
        ------
        TimeoutError
            None came within `timeout`, s.
        EndOfStream
            The parents have finished and nothing is left. Left alone, it ends this
            worker in good order.

        Notes
        -----
        A frame whose bytes have changed goes to the dead letters, and is counted; the
        next one comes next.
        """
        port = self._connected()
        try:
            return port.get(0)
        except TimeoutError:
            pass
        deadline = None if timeout is None else time.monotonic() + timeout
        found: list[Any] = []

        def look(wait: float) -> bool:
            try:
                found.append(port.get(wait))
            except TimeoutError:
                return False
            return True

        if not await patiently(look, deadline, False):
            raise TimeoutError(
                f"processor {self._name!r}: nothing came within {timeout} s"
            )
        return found[0]


async def emitted(
    emit: Callable[..., bool], value: Any, d_type: DType | int | None
) -> bool:
    """Emit at once, or wait briefly for room; whether it went."""
    if emit(value, d_type, 0):
        return True
    deadline = time.monotonic() + EMIT_WAIT_S
    return await patiently(lambda wait: emit(value, d_type, wait), deadline, False)


async def patiently(
    attempt: Callable[[float], _T], deadline: float | None, no: _T
) -> _T:
    """Try until it works or the deadline, without stopping the event loop for long.

    The only task of a loop sleeps in the kernel itself, in short slices; beside others
    a thread does.
    """
    # Here, since a worker whose function is plain starts sooner without it.
    import asyncio

    loop = asyncio.get_running_loop()
    while True:
        left = _SLICE_S
        if deadline is not None:
            left = min(left, deadline - time.monotonic())
            if left <= 0:
                return no
        if len(asyncio.all_tasks(loop)) == 1:
            done = attempt(left)
            await asyncio.sleep(0)
        else:
            done = await loop.run_in_executor(None, attempt, left)
        if done:
            return done
