"""Carrier: authenticated connections to other hosts, each one split into channels.

A channel is an ordered stream of bytes in both directions that may die at any moment,
and then loses what was on its way. Sequence numbers, acknowledgement and resending are
above it, so no carrier is trusted with them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from ataraxis.errors import RemoteError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ataraxis.link.hosts import Hosts

NAME_BYTES = 200
"""Longest name of a channel, bytes of UTF-8."""
_CARRIERS = {
    "tls": ("ataraxis.link.tls_carrier", "TlsCarrier"),
    "zenoh": ("ataraxis.link.zenoh_carrier", "ZenohCarrier"),
}

OnRefused = Callable[[str, str], None]
"""Called with the address of a refused client and the reason; from any thread."""


class ChannelClosed(RemoteError):
    """The channel has ended; the text states why."""


class Channel(Protocol):
    """A stream of bytes in each direction between two agents.

    One thread may send while another one receives.
    """

    peer: str
    """Name of the other host, proven by its certificate."""
    name: str
    """What the dialling side asked for, as ``mirror camera``; up to `NAME_BYTES`."""
    window: int | None
    """Most bytes that may be unacknowledged by the other agent; None: no such bound."""

    def send(self, data: Buffer, timeout: float) -> None:
        """Send all bytes; the buffer may be reused afterwards.

        Parameters
        ----------
        data : buffer
            Contiguous bytes.
        timeout : float
            Longest wait, s.

        Raises
        ------
        TimeoutError
            Not all was taken in time. The channel is closed, as a part may be sent.
        ChannelClosed
            The channel has ended; the other side may have received a part.
        """

    def receive_into(self, buffer: memoryview, timeout: float) -> int:
        """Receive what has arrived, at least 1 byte.

        Parameters
        ----------
        buffer : memoryview
            Writable bytes that receive it.
        timeout : float
            Longest wait, s.

        Returns
        -------
        int
            How many bytes; 0: none within `timeout`.

        Raises
        ------
        ChannelClosed
            The channel has ended, and all that arrived before has been received.
        """

    def close(self) -> None:
        """End the channel from any thread; both sides' waits raise `ChannelClosed`.

        What was sent just before may be lost. A second call does nothing.
        """


class Carrier(Protocol):
    """Connections of this host to the others of `hosts.yaml`."""

    address: str
    """Where it listens, as ``192.0.2.10:7411``; "" if it does not."""
    on_refused: OnRefused | None
    """Told of each client that was refused, besides the log."""

    def listen(self, address: str) -> None:
        """Accept other hosts on one address, and on no other.

        Parameters
        ----------
        address : str
            ``host:port``; port 0: a free one, which `address` then states.

        Raises
        ------
        AccessDenied
            This host's certificate, key or authority is missing or not valid.
        OSError
            The address is in use, or is not of this machine.
        """

    def accept(self, timeout: float) -> Channel | None:
        """Return the next channel that another host has dialled.

        Parameters
        ----------
        timeout : float
            Longest wait, s.

        Returns
        -------
        Channel or None
            Of an authenticated peer; None: no other within `timeout`, or it is closed.
        """

    def dial(
        self,
        address: str,
        host: str,
        name: str,
        timeout: float,
        priority: bool = False,
    ) -> Channel:
        """Open a channel to another host.

        Parameters
        ----------
        address : str
            Where its agent listens, ``host:port``.
        host : str
            Its name, which its certificate must prove.
        name : str
            What the channel is for; 1 to `NAME_BYTES` bytes of UTF-8.
        timeout : float
            Longest wait for all of it, s.
        priority : bool, optional
            Whether its bytes go before those of other channels, for small frames.

        Raises
        ------
        HostUnavailable
            No agent answers there; the message states what was tried.
        AccessDenied
            One side refused the other; the message states why.
        """

    def drop(self, host: str) -> None:
        """End every channel of a host whose certificate was revoked meanwhile.

        Its next one is checked against `hosts.yaml` as it is now.
        """

    def close(self) -> None:
        """Stop listening and close every channel."""


def carrier_of(hosts: Hosts) -> Carrier:
    """Return a new carrier of the kind that `hosts.yaml` names.

    Parameters
    ----------
    hosts : Hosts
        With ``carrier``, and the certificate, key and authority of this host.

    Raises
    ------
    AccessDenied
        A file of the certificate is missing, not valid, or readable by other users.
    ImportError
        The carrier is ``zenoh``, and eclipse-zenoh is not installed.
    """
    module, name = _CARRIERS[hosts.carrier]
    made: Carrier = getattr(importlib.import_module(module), name)(hosts)
    return made


def checked_channel_name(name: str) -> bytes:
    """Return the name's bytes; `ValueError` if it is empty or too long."""
    data = name.encode()
    if not 0 < len(data) <= NAME_BYTES:
        raise ValueError(
            f"the name of a channel must have 1 to {NAME_BYTES} bytes, got {len(data)}"
        )
    return data
