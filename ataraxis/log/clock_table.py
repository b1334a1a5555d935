"""Tables of another host's clock: the streams ``clock.HOST``, and what readers find.

Each row relates the clock of the host that records to that of another host, at one
instant. `ataraxis.link` sends them as an ordinary stream; a `Recorder` of a stream
whose stamps are of the other host records them beside it.
"""

from __future__ import annotations

import zlib

from ataraxis.labels import Labels

PREFIX = "clock."
"""Streams of this prefix have the rows of a table: ``clock.acq`` that of host acq."""
FIELDS = ("local_ns", "offset_ns", "bound_ns", "drift_ppb")
"""Columns of a table, int64: time of the host that records, ns; time of the other host
minus it, ns; largest error of this, ns; its growth, ns per s."""
CLOCK = "clock"
"""Attribute of labels that names the clock of the stamps: ``HOST/BOOT-ID``."""
HOST, BOOT, LOCAL = "host", "boot_id", "local_host"
"""Attributes of a table: the other host, its boot, and the host that measured."""


def table_name(host: str) -> str:
    """Return the name of the stream that has the clock of a host.

    Examples
    --------
    >>> table_name("acq")
    'clock.acq'
    """
    return f"{PREFIX}{host}"


FIRST_TABLE = 1 << 31
"""Tables have source numbers from here on: two recorders give one the same."""


def table_number(host: str) -> int:
    """Return the source number of the recorded clock of a host."""
    return FIRST_TABLE | (zlib.crc32(host.encode()) & 0x3FFFFFFF)


def clock_of(labels: Labels | None) -> tuple[str, str]:
    """Return the host and the boot whose clock the stamps of a stream are of.

    Two empty texts: of the host that has the stream.

    Examples
    --------
    >>> clock_of(Labels("u1", (4,), attrs={"clock": "acq/0a1b"}))
    ('acq', '0a1b')
    """
    found = "" if labels is None else labels.attrs.get(CLOCK, "")
    host, _, boot = found.partition("/") if isinstance(found, str) else ("", "", "")
    return host, boot


def is_table(name: str, labels: Labels | None) -> bool:
    """Return whether a stream or source is the clock of another host."""
    if not name.startswith(PREFIX) or labels is None or labels.shape != (len(FIELDS),):
        return False
    coord = labels.coords.get("field")
    return coord is not None and tuple(map(str, coord.values)) == FIELDS
