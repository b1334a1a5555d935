"""What a worker says and hears: connect, emit, get; awaited, as uPipe has them.

The plain forms are those of the `Port` that `Talk.open` returns.
"""

from __future__ import annotations

from typing import Any

from ataraxis.errors import NotConnectedError
from ataraxis.frame import DType
from ataraxis.pipeline import port as ports
from ataraxis.pipeline.port import Port


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
        # In front of the methods below, which are slower and say the same.
        self.__dict__.update(port.awaited)
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
            As for `Frame.from_value`; or a `DataFrame`, of which the value goes on.
            Copied.
        d_type : DType, optional
            How to send it, if not as itself.

        Returns
        -------
        bool
            False: there was no room within 0.5 s, not counting the time until all
            workers take part; try again.

        Raises
        ------
        TypeError, ValueError
            No frame carries such a value, or not as `d_type`.
        EndOfStream
            The children have finished; nobody will have it. Left alone, it ends this
            worker in good order.
        """
        return bool(await self._connected().awaited["emit"](value, d_type))

    async def emit_sync(
        self,
        value: Any,
        d_type: DType | int | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Hand a value to every child, however long it takes to have room.

        False only after `timeout`, s. Otherwise as `emit`.
        """
        send = self._connected().awaited["emit_sync"]
        return bool(await send(value, d_type, timeout))

    async def get(self) -> Any:
        """Return the next value, or None if there is none now.

        It is acknowledged by the next `get`, or when the worker ends in good order; if
        the worker dies before, another one has it. Raises as `get_sync`.
        """
        return await self._connected().awaited["get"]()

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
        return await self._connected().awaited["get_sync"](timeout)
