"""Mirror: a stream of another host under its name here, asked of the agent here."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, Literal, Self

from ataraxis.clock import Offset
from ataraxis.cluster.door import AgentClient, ask_agent
from ataraxis.cluster.status import (
    DISCONNECTED,
    ENDED,
    LOST,
    MirrorStatistics,
    offset_of,
)
from ataraxis.datamux.end import End
from ataraxis.errors import (
    AccessDenied,
    AtaraxisError,
    HostUnavailable,
    NotConnectedError,
    RemoteError,
)
from ataraxis.shm.context import Context, ContextLike
from ataraxis.shm.thread import Thread
from ataraxis.stream.endpoint import check_timeout, plain_name

POLICIES = ("lossless", "lossy", "latest")
ON_SPOOL_FULL = ("wait", "lose")
ACKNOWLEDGE = ("ring", "recorded")
_SLICE_S = 5.0
_RETRY_S = 0.2


class Mirror:
    """A stream of another host, under its name, here; returns when the stream is here.

    Readers here need no change: dtype, shape, labels, numbers and time stamps are those
    of the original, only ``labels.attrs["clock"]`` names the clock of the other host.
    No frame is lost or repeated if the cable is pulled or a process killed, at either
    end; while the other host cannot be reached, readers wait.

    Parameters
    ----------
    stream : str
        Name of the stream on the other host.
    host : str
        Name of that host in ``hosts.yaml`` of the agent here.
    name : str, optional
        Name here; by default `stream`.
    policy : {'lossless', 'lossy', 'latest'}
        'lossless' misses no frame that is in the other host's ring at the first
        connection, or is sent later. The others drop frames when the link is too slow,
        and count them: 'latest' is for viewers.
    hold : bool
        With 'lossless', at most one ring is received until a reader here that gates has
        joined, so that the first reader gets the first frame.
    on_spool_full : {'wait', 'lose'}
        What the other host does when its disk holds as much as ``hosts.yaml`` there
        allows: its producer waits, or frames are lost and counted.
    acknowledge : {'ring', 'recorded'}
        The other host forgets a frame when it is in the ring here; or when the durable
        readers here have released it, against a power failure here.
    context : Context, str, Path or None
        The context here, of an agent that runs.
    timeout : float
        How long to wait until the stream is here, s.
    detached : bool
        Leave the mirror to the agent: it stays when this object is closed and this
        program ends, until `drop_mirror` or the end of the stream.

    Raises
    ------
    HostUnavailable
        No agent runs here, or the other host cannot be reached; the message has its
        address, and what to do.
    AccessDenied
        The other host does not let this one read.
    SegmentExists
        A stream here has the name.
    TimeoutError
        The other host has no such stream within `timeout`.

    Examples
    --------
    >>> with Mirror("camera", host="acq") as mirror:  # doctest: +SKIP
    ...     for frame in Consumer("camera"):
    ...         ...
    >>> Mirror("camera", host="acq", policy="all")
    Traceback (most recent call last):
    ...
    ValueError: policy must be one of lossless, lossy, latest, got 'all'
    """

    def __init__(
        self,
        stream: str,
        host: str,
        *,
        name: str | None = None,
        policy: Literal["lossless", "lossy", "latest"] = "lossless",
        hold: bool = True,
        on_spool_full: Literal["wait", "lose"] = "wait",
        acknowledge: Literal["ring", "recorded"] = "ring",
        context: ContextLike = None,
        timeout: float = 10.0,
        detached: bool = False,
    ) -> None:
        check_choice("policy", policy, POLICIES)
        check_choice("on_spool_full", on_spool_full, ON_SPOOL_FULL)
        check_choice("acknowledge", acknowledge, ACKNOWLEDGE)
        check_timeout(timeout)
        self.stream, self.host = plain_name(stream), host
        self.name = plain_name(name or stream)
        """Name of the stream here."""
        self._context = Context.of(context)
        self._wanted: dict[str, Any] = {
            "stream": self.stream, "host": host, "name": self.name, "policy": policy,
            "hold": bool(hold), "on_spool_full": on_spool_full,
            "acknowledge": acknowledge, "detached": bool(detached),
        }  # fmt: skip
        self._is_closed = False
        self._over = threading.Event()
        self._last: MirrorStatistics | None = None
        self._gate = threading.Lock()
        self._client = AgentClient(self._context)
        try:
            self._hold = self._client.ask("mirror", **self._wanted)["hold"]
            self._wait_until_here(timeout)
            self._thread = Thread(self._stay, f"ataraxis-mirror-{self.name}")
            self._thread.start()
        except BaseException:
            self._is_closed = True
            self._client.close()
            raise

    def _wait_until_here(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            left = deadline - time.monotonic()
            found = self._asked(self._client, "here", max(min(left, _SLICE_S), 0))
            if found.is_here:
                return
            if found.state == LOST:
                raise RemoteError(f"{found.host}:{found.stream}: {found.problem}")
            if time.monotonic() >= deadline:
                self._complain(found, timeout)

    def _complain(self, found: MirrorStatistics, timeout: float) -> None:
        if AccessDenied.__name__ in found.problem:
            raise AccessDenied(found.problem)
        if found.is_connected:
            raise TimeoutError(
                f"waited {timeout:g} s: host {self.host!r} has no stream "
                f"{self.stream!r}: start its producer there, or see 'ataraxis ls "
                f"{self.host}:'" + (f" ({found.problem})" if found.problem else "")
            )
        raise HostUnavailable(
            f"waited {timeout:g} s for {self.stream!r} of host {self.host!r}: "
            f"{found.problem or 'it was not reached'}. 'ataraxis doctor {self.host}' "
            "finds out what is wrong"
        )

    def _asked(self, client: AgentClient, until: str, wait: float) -> MirrorStatistics:
        """Ask for the statistics once the mirror is `until`, or after `wait`, s."""
        fields = client.ask(
            "wait", wait + 10, name=self.name, until=until, wait=wait, hold=self._hold
        )
        self._last = MirrorStatistics.from_dict(fields)
        return self._last

    # ---- staying attached, also to the agent's successor

    def _stay(self) -> None:
        while not self._is_closed:
            self._client.wait_for_end()
            while not self._over.wait(_RETRY_S):
                try:
                    self._return()
                    break
                except (AtaraxisError, OSError):
                    continue
            else:
                return

    def _return(self) -> None:
        """Ask the agent's successor for the same mirror."""
        client = AgentClient(self._context)
        try:
            hold = client.ask("mirror", **self._wanted, again=True)["hold"]
        except BaseException:
            client.close()
            raise
        with self._gate:
            self._client.close()
            self._client, self._hold = client, hold
            if self._is_closed:
                client.close()

    # ---- what it does

    @property
    def state(self) -> str:
        """The state, as of `MirrorStatistics`; 'disconnected' also without an agent."""
        return self.statistics().state

    def statistics(self) -> MirrorStatistics:
        """Return the counts; those of the last time if the agent is away."""
        try:
            with AgentClient(self._context) as client:
                return self._asked(client, "now", 0)
        except (HostUnavailable, NotConnectedError, TimeoutError) as error:
            last = self._last or MirrorStatistics(self.name, self.stream, self.host)
            fields = {**last.as_dict(), "is_connected": False, "problem": str(error)}
            if last.state not in (ENDED, LOST):
                fields["state"] = DISCONNECTED
            return MirrorStatistics.from_dict(fields)

    def offset(self) -> Offset:
        """Return how far the other host's clock is ahead of this host's.

        Raises
        ------
        HostUnavailable
            It was not measured yet, or no agent runs here.
        """
        return offset_of(ask_agent("offset", context=self._context, host=self.host))

    def wait(self, timeout: float | None = None) -> End:
        """Wait until the stream has ended and is here whole, and return the end.

        Parameters
        ----------
        timeout : float or None
            Longest wait, s.

        Returns
        -------
        End
            'completed'; 'stopped' if this mirror was closed; 'lost' with the error.

        Raises
        ------
        TimeoutError
            The stream still runs after `timeout`.
        """
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._is_closed:
            left = _SLICE_S if deadline is None else deadline - time.monotonic()
            try:
                with AgentClient(self._context) as client:
                    found = self._asked(client, "end", max(min(left, _SLICE_S), 0))
            except (HostUnavailable, NotConnectedError):
                self._over.wait(min(_RETRY_S, max(left, 0)))  # the agent restarts
            else:
                if found.state == ENDED:
                    return End("completed")
                if found.state == LOST:
                    return End("lost", RemoteError(found.problem))
            if left <= 0:
                raise TimeoutError(
                    f"{self.host}:{self.stream} still runs after {timeout:g} s"
                )
        return End("stopped")

    def close(self) -> None:
        """End the mirror, and the stream here; a detached one stays. Idempotent."""
        with self._gate:
            if self._is_closed:
                return
            self._is_closed = True
            client, hold = self._client, self._hold
        self._over.set()
        with contextlib.suppress(AtaraxisError, OSError):
            # Not only by closing the connection: the stream here has ended after this.
            ask_agent("release", context=self._context, timeout=5.0, hold=hold)
        client.close()
        self._thread.join(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Mirror of {self.host}:{self.stream} as {self.name!r}>"


def drop_mirror(name: str, *, context: ContextLike = None) -> None:
    """End a mirror and its stream here, also a detached one.

    Parameters
    ----------
    name : str
        Name of the stream here.
    context : Context, str, Path or None
        The context here.

    Raises
    ------
    HostUnavailable
        No agent runs here.
    SourceNotFound
        It has no such mirror.
    """
    ask_agent("drop", context=context, name=plain_name(name))


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raise `ValueError` unless an option is one of several words."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
