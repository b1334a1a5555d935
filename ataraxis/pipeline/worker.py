"""`Worker`: what later releases of uPipe call a processor inside its process."""

from __future__ import annotations

from typing import Any

from ataraxis.pipeline import port as ports
from ataraxis.pipeline.talk import Talk


class Worker(Talk):
    """The process it is made in, as a worker of a processor.

    Parameters
    ----------
    name : str, optional
        The processor's; found out if not given.
    **ignored
        ``entry``, ``func``, ``settings``, ``config``: of the declaration.

    Examples
    --------
    >>> async def forward():
    ...     me = Worker("forward")
    ...     await me.join()
    ...     while True:
    ...         await me.emit_sync(await me.get_sync(timeout=None))
    >>> from ataraxis.pipeline import Processor
    >>> Processor("forward", func=forward).kind
    'dialect'
    """

    def __init__(self, name: str | None = None, **ignored: Any) -> None:
        port = ports.current()
        self._name = name or (port.name if port is not None else "")

    async def join(self) -> None:
        """Take part in the pipe, as `Processor.connect`."""
        self.open()

    @property
    def name(self) -> str:
        """The processor's name."""
        return self._name

    @property
    def config(self) -> dict[str, Any]:
        """What the declaration's ``config=`` says."""
        return dict(self._connected().config)

    @property
    def instance_id(self) -> int:
        """Which of the processor's workers this is, from 0."""
        return self._connected().worker
