"""What a processor is told: how many workers, which order, what a death means."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from ataraxis.stream.overflow import Overflow, check_on_full

When: TypeAlias = Literal["never", "on-failure", "always"]
_WHEN = ("never", "on-failure", "always")
_ON_ERROR = ("fail", "skip", "restart")


@dataclass(frozen=True)
class Restart:
    """What happens when a worker process dies.

    Examples
    --------
    >>> Restart("on-failure", limit=5, window_s=10)
    Restart(when='on-failure', limit=5, window_s=10, backoff_s=0.05)
    """

    when: When = "on-failure"
    """'never'; 'on-failure', when it was killed or ended without being asked to; or
    'always', also when its function has returned."""
    limit: int | None = 3
    """How many restarts within `window_s` are one too many; None: any number."""
    window_s: float = 60.0
    """Over what time they are counted, s."""
    backoff_s: float = 0.05
    """How long to wait before the first restart, s; doubled by each one in the window,
    up to 5 s."""

    def __post_init__(self) -> None:
        if self.when not in _WHEN:
            raise ValueError(f"restart={self.when!r}: one of {', '.join(_WHEN)}")
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit={self.limit}: None, or 0 and more")
        if not self.window_s > 0 or not self.backoff_s >= 0:
            raise ValueError("window_s is above 0, backoff_s 0 or more")


@dataclass(frozen=True)
class ProcessorSettings:
    """How a processor runs; the keywords of `Processor`."""

    workers: int = 1
    """Worker processes, each a copy of the processor."""
    ordered: bool = False
    """Whether what several workers return goes on in the order of what they got."""
    overlap: int = 0
    """Samples of the block before that are put before each block, along axis 0."""
    split: str | None = None
    """'channel': each worker has its own part of the last axis."""
    max_batch: int = 1
    """How many values one call takes, as a list; it returns as many."""
    max_wait: float = 0.0
    """How long to wait for a batch to fill, s."""
    on_full: Overflow = "block"
    """What a put into a full input queue does; see `ataraxis.stream.overflow`."""
    restart: Restart | None = None
    """What a death means; if not given, 'on-failure' for functions of a value, 'never'
    for those that get and emit themselves."""
    on_error: Literal["fail", "skip", "restart"] = "fail"
    """An exception of the function ends the pipe; or the value goes to the dead
    letters; or the worker is started anew and has the value again."""
    hang_timeout: float | None = None
    """Longest time for one value, s; a worker that takes longer is killed."""
    attempts: int = 3
    """How many workers a value may kill before it goes to the dead letters."""
    buffer_count: int = 256
    """Slots of the input queue."""
    buffer_size: int = 65536
    """Payload bytes of a slot; larger values take a detour of some 300 us."""
    threads: int | None = 1
    """Threads of BLAS and OpenMP in a worker; None: leave them alone."""
    allow_pickle: bool = False
    """Whether values that nothing else carries may be pickled into the input queue."""
    host: str | None = None
    """On which host of the engine; None: the first."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, before anything is started."""
        for name, least in _LEAST.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name}={getattr(self, name)!r}: at least {least}")
        check_on_full(self.on_full, get_args(Overflow))
        if self.on_error not in _ON_ERROR:
            raise ValueError(
                f"on_error={self.on_error!r}: one of {', '.join(_ON_ERROR)}"
            )
        if self.split not in (None, "channel"):
            raise ValueError(f"split={self.split!r}: None or 'channel'")
        if self.hang_timeout is not None and not self.hang_timeout > 0:
            raise ValueError(f"hang_timeout={self.hang_timeout!r}: None or above 0 s")
        if self.max_batch > 1 and (self.overlap or self.split):
            raise ValueError("max_batch goes with neither overlap= nor split=")

    @property
    def drops(self) -> bool:
        """Whether values may be lost on the way in."""
        return self.on_full not in ("block", "raise")

    @property
    def overflow(self) -> str:
        """`on_full` under its old name."""
        return self.on_full

    def as_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, for JSON."""
        given = dataclasses.asdict(self)
        plain = dataclasses.asdict(ProcessorSettings())
        options = {k: v for k, v in given.items() if v != plain[k]}
        if "on_full" in options:  # the file format has the old spelling
            on_full = options.pop("on_full")
            options["overflow"] = "error" if on_full == "raise" else on_full
        return options

    @classmethod
    def from_dict(cls, said: dict[str, Any]) -> ProcessorSettings:
        """Read what `as_dict` returned."""
        options = _renamed(said)
        if options.get("restart") is not None:
            options["restart"] = Restart(**options["restart"])
        return cls(**options)


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    """Return options with `on_full` in place of ``overflow``, its old name."""
    options = dict(given)
    if "overflow" in options:
        if "on_full" in options:
            raise TypeError("on_full= was given, and overflow=, its old name, too")
        old = options.pop("overflow")
        options["on_full"] = "raise" if old == "error" else old
    return options


_LEAST = {
    "workers": 1,
    "overlap": 0,
    "max_batch": 1,
    "max_wait": 0,
    "attempts": 1,
    "buffer_count": 2,
    "buffer_size": 0,
}


def settings_of(given: Any, keywords: dict[str, Any]) -> ProcessorSettings:
    """Make settings of what `Processor` was given: uPipe's object, a dict, keywords."""
    said: dict[str, Any] = {}
    if isinstance(given, ProcessorSettings):
        said = {f.name: getattr(given, f.name) for f in dataclasses.fields(given)}
    elif isinstance(given, dict):
        said = _renamed(given)
    elif given is not None:
        said = {
            "workers": max(1, int(getattr(given, "autoscale", 1))),
            "host": getattr(given, "host", None),
        }
        size = int(getattr(given, "input_buffer_size", 0))
        if size:
            said["buffer_count"] = max(2, size // (65536 + 192))
    said.update(_renamed(keywords))
    if isinstance(said.get("restart"), str):
        said["restart"] = Restart(said["restart"])
    unknown = said.keys() - {f.name for f in dataclasses.fields(ProcessorSettings)}
    if unknown:
        known = ", ".join(f.name for f in dataclasses.fields(ProcessorSettings))
        raise TypeError(
            f"Processor has no setting {', '.join(sorted(unknown))}; it has {known}"
        )
    return ProcessorSettings(**said)
