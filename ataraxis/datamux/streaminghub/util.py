"""Names of StreamingHub's ``util`` that the seed's examples use."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from ataraxis.datamux.end import END_OF_STREAM
from ataraxis.datamux.task import gen_randseq, identity, prefix
from ataraxis.errors import ConfigError

__all__ = [
    "END_OF_STREAM",
    "Enveloper",
    "Settings",
    "envelope",
    "gen_randseq",
    "identity",
    "prefix",
    "sleep",
]

sleep = time.sleep


def envelope(x: Any, prefix: bytes, suffix: bytes) -> list[Any]:
    """Return ``[prefix, x, suffix]``."""
    return [prefix, x, suffix]


class Enveloper:
    """A transform that puts each item between a prefix and a suffix.

    Parameters
    ----------
    prefix, suffix : bytes, optional
        Placed before and after each item.
    transform : callable, optional
        Applied to the item first.

    Examples
    --------
    >>> Enveloper(prefix=b"topic")({"a": 1})
    [b'topic', {'a': 1}]
    """

    def __init__(
        self,
        *,
        prefix: bytes | None = None,
        transform: Callable[[Any], Any] | None = None,
        suffix: bytes | None = None,
    ) -> None:
        self.prefix = prefix
        self.transform = transform
        self.suffix = suffix

    def __call__(self, msg: Any) -> Any:
        """Return the item, transformed and enveloped."""
        if self.transform is not None:
            msg = self.transform(msg)
        if self.prefix is None and self.suffix is None:
            return msg
        before = [] if self.prefix is None else [self.prefix]
        return [*before, msg, *([] if self.suffix is None else [self.suffix])]


# ---- the queue and the flag of StreamingHub's programs

Flag = Event


class Queue:
    """A queue between processes whose `get` returns None on timeout.

    Any queue can be a sink; this one is for programs written for StreamingHub.

    Parameters
    ----------
    empty : bool
        Without a queue until `assign`.
    timeout : float or None
        How long `get` waits, s; None: without limit.

    Examples
    --------
    >>> sink = Queue(timeout=5)
    >>> sink.put({"a": 1})
    >>> sink.get()
    {'a': 1}
    >>> sink.close()
    """

    def __init__(self, empty: bool = False, timeout: float | None = None) -> None:
        self.timeout = timeout
        self.q: Any = None if empty else multiprocessing.get_context("spawn").Queue()

    def assign(self, q: Queue) -> None:
        """Use the queue of another handle."""
        self.q = q.q

    def get(self) -> Any:
        """Return the next item, or None if none came within `timeout`."""
        try:
            return self._whole().get(timeout=self.timeout)
        except queue.Empty:
            return None

    def get_nowait(self) -> Any:
        """Return the next item; `queue.Empty` without one."""
        return self._whole().get_nowait()

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put an item."""
        self._whole().put(obj, block, timeout)

    def put_nowait(self, obj: Any) -> None:
        """Put an item."""
        self._whole().put_nowait(obj)

    def qsize(self) -> int:
        """Return the approximate number of items."""
        return int(self._whole().qsize())

    def close(self) -> None:
        """End putting from here; wait until all items are sent."""
        if self.q is not None:
            self.q.close()
            self.q.join_thread()

    def _whole(self) -> Any:
        if self.q is None:
            raise ValueError("Queue(empty=True) has no queue: assign() one")
        return self.q


def create_flag() -> Flag:
    """Return an event shared by processes."""
    return multiprocessing.get_context("spawn").Event()


# ---- the folders of data and metadata, and the file that stores them

FILE = ".streaminghubrc"
_KEYS = ("data_dir", "meta_dir")


@dataclass(frozen=True)
class Settings:
    """The folders of data and metadata; by default both ``$HOME/streaminghub``."""

    data_dir: Path
    """Contains a folder of recordings per collection."""
    meta_dir: Path
    """Contains ``*.collection.json`` or ``.yaml`` files."""

    @classmethod
    def load(cls) -> Settings:
        """Read ``./.streaminghubrc``, else ``~/.streaminghubrc``, else the defaults.

        Raises
        ------
        ConfigError
            The file is damaged.
        """
        for folder in (Path.cwd(), Path.home()):
            path = folder / FILE
            if path.is_file():
                return cls._read(path)
        home = Path.home() / "streaminghub"
        return cls(home, home)

    @classmethod
    def _read(cls, path: Path) -> Settings:
        cure = "run 'python -m ataraxis.datamux init' to rewrite it"
        try:
            data = json.loads(path.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ConfigError(f"{path}: not JSON: {error}; {cure}") from error
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected an object with {_KEYS}; {cure}")
        default = str(Path.home() / "streaminghub")
        found = [data.get(key, default) for key in _KEYS]
        for key, value in zip(_KEYS, found, strict=True):
            if not isinstance(value, str) or not value:
                raise ConfigError(
                    f"{path}: {key}: expected a folder, found {value!r}; {cure}"
                )
        return cls(*(expand(value) for value in found))

    def save(self, path: Path | None = None) -> Path:
        """Make both folders and write ``~/.streaminghubrc``; return its path."""
        target = Path.home() / FILE if path is None else path
        for folder in (self.data_dir, self.meta_dir):
            folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({key: str(getattr(self, key)) for key in _KEYS}, indent=2)
        draft = target.with_name(f"{target.name}.{os.getpid()}")
        draft.write_text(text + "\n", encoding="utf-8")
        os.replace(draft, target)
        return target


def expand(folder: str | Path) -> Path:
    """Return the absolute path of a folder, with ``~`` and ``$HOME`` expanded."""
    return Path(os.path.expandvars(folder)).expanduser().absolute()
