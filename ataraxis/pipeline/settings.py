"""The settings of a processor: workers, order, what happens when a worker dies."""

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
    """'never'; 'on-failure': if it was killed or ended unexpectedly; 'always': also if
    its function has returned."""
    limit: int | None = 3
    """How many restarts are allowed within `window_s`; None: any number."""
    window_s: float = 60.0
    """The time over which restarts are counted, s."""
    backoff_s: float = 0.05
    """Wait before the first restart, s; doubled by each further one in the window, up
    to 5 s."""

    def __post_init__(self) -> None:
        if self.when not in _WHEN:
            raise ValueError(
                f"restart must be one of {', '.join(_WHEN)}, got {self.when!r}"
            )
        if self.limit is not None and self.limit < 0:
            raise ValueError(f"limit must be None or at least 0, got {self.limit}")
        if not self.window_s > 0 or not self.backoff_s >= 0:
            raise ValueError(
                "window_s must be above 0 and backoff_s at least 0, got "
                f"{self.window_s!r} and {self.backoff_s!r}"
            )


@dataclass(frozen=True)
class ProcessorSettings:
    """How a processor runs; the keywords of `Processor`."""

    workers: int = 1
    """Worker processes, each a copy of the processor."""
    ordered: bool = False
    """Whether the results of several workers continue in the order of the inputs."""
    overlap: int = 0
    """Samples of the previous block to put in front of each block, along axis 0."""
    split: str | None = None
    """'channel': each worker gets its own part of the last axis."""
    max_batch: int = 1
    """Most values of one call; above 1, it gets a list and returns one as long."""
    max_wait: float = 0.0
    """Longest wait for a batch to fill, s."""
    on_full: Overflow = "block"
    """What a put into a full input queue does; see `ataraxis.stream.overflow`."""
    restart: Restart | None = None
    """What happens when a worker dies; if not given, 'on-failure' for functions of a
    value, 'never' for those that get and emit themselves."""
    on_error: Literal["fail", "skip", "restart"] = "fail"
    """What happens when the function raises: 'fail' ends the pipe; 'skip' moves the
    value to the dead letters; 'restart' tries it again in a new process."""
    hang_timeout: float | None = None
    """Longest time for one value, s; a worker that takes longer is killed."""
    attempts: int = 3
    """How many workers a value may kill before it goes to the dead letters."""
    buffer_count: int = 256
    """Slots of the input queue."""
    buffer_size: int = 65536
    """Payload bytes of a slot; a larger value lies in a chunk of the queue's arena."""
    gpu: bool | int | None = None
    """True: one worker for each GPU, or `workers` that share them; a number: that GPU.
    A worker sees its GPU only, and the arena of its input queue is page-locked."""
    threads: int | None = 1
    """Threads of BLAS and OpenMP in a worker; None: their defaults."""
    allow_pickle: bool = False
    """Whether values without a native encoding may be pickled into the input queue."""
    host: str | None = None
    """The host of the engine that runs it; None: the first. See `Cluster`."""
    tag: str | None = None
    """Its workers run on the hosts that have this tag, as ``cuda``."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, least in _LEAST.items():
            if not (value := getattr(self, name)) >= least:
                raise ValueError(f"{name} must be at least {least}, got {value!r}")
        check_on_full(self.on_full, get_args(Overflow))
        if self.gpu is not None and not (isinstance(self.gpu, int) and self.gpu >= 0):
            raise ValueError(
                f"gpu must be None, True or the number of a GPU, got {self.gpu!r}"
            )
        if self.on_error not in _ON_ERROR:
            raise ValueError(
                f"on_error must be one of {', '.join(_ON_ERROR)}, got {self.on_error!r}"
            )
        if self.split not in (None, "channel"):
            raise ValueError(f"split must be None or 'channel', got {self.split!r}")
        if self.hang_timeout is not None and not self.hang_timeout > 0:
            raise ValueError(
                f"hang_timeout must be None or above 0 s, got {self.hang_timeout!r}"
            )
        if self.host is not None and self.tag is not None:
            raise ValueError(
                f"give host= or tag=, not both, got {self.host!r} and {self.tag!r}"
            )
        if self.max_batch > 1 and (self.overlap or self.split):
            raise ValueError("max_batch cannot be combined with overlap= or split=")

    @property
    def has_gpu(self) -> bool:
        """Whether each worker has a GPU."""
        return self.gpu is not None and self.gpu is not False

    def with_gpus(self, count: int) -> ProcessorSettings:
        """Return the settings with one worker for each of `count` GPUs, if due."""
        if self.gpu is True and self.workers == 1 and count > 1:
            return dataclasses.replace(self, workers=count)
        return self

    @property
    def drops(self) -> bool:
        """Whether a full input queue drops values."""
        return self.on_full not in ("block", "raise")

    @property
    def overflow(self) -> str:
        """`on_full` under its old name."""
        return self.on_full

    def as_dict(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, for JSON."""
        given = dataclasses.asdict(self)
        defaults = dataclasses.asdict(ProcessorSettings())
        options = {k: v for k, v in given.items() if v != defaults[k]}
        if "on_full" in options:  # the JSON keeps the old spelling
            on_full = options.pop("on_full")
            options["overflow"] = "error" if on_full == "raise" else on_full
        return options

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ProcessorSettings:
        """Return the settings that `as_dict` has returned."""
        options = _renamed(fields)
        if options.get("restart") is not None:
            options["restart"] = Restart(**options["restart"])
        return cls(**options)


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    """Return options with `on_full` in place of ``overflow``, its old name."""
    options = dict(given)
    if "overflow" in options:
        if "on_full" in options:
            raise TypeError("give on_full= or overflow=, its old name, not both")
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
    """Return the settings for what `Processor` was given.

    Parameters
    ----------
    given : ProcessorSettings, APIProcSettings, dict or None
        Its ``settings=``.
    keywords : dict
        Its further keywords.
    """
    names = [f.name for f in dataclasses.fields(ProcessorSettings)]
    options: dict[str, Any] = {}
    if isinstance(given, ProcessorSettings):
        options = {name: getattr(given, name) for name in names}
    elif isinstance(given, dict):
        options = _renamed(given)
    elif given is not None:
        options = {
            "workers": max(1, int(getattr(given, "autoscale", 1))),
            "host": getattr(given, "host", None),
        }
        size = int(getattr(given, "input_buffer_size", 0))
        if size:
            options["buffer_count"] = max(2, size // (65536 + 192))
    options.update(_renamed(keywords))
    if isinstance(options.get("restart"), str):
        options["restart"] = Restart(options["restart"])
    if unknown := options.keys() - set(names):
        raise TypeError(
            f"Processor has no setting {', '.join(sorted(unknown))}; it has "
            + ", ".join(names)
        )
    return ProcessorSettings(**options)
