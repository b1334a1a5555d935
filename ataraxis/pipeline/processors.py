"""`Processor`: declares what runs in workers; in a worker, its input and output."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Self

from ataraxis.pipeline.function import Code, Kind, code_of, kind_of
from ataraxis.pipeline.partition import Key
from ataraxis.pipeline.settings import ProcessorSettings, settings_of
from ataraxis.pipeline.upipe import WorkerMethods
from ataraxis.shm.context import checked_name


class Processor(WorkerMethods):
    """Something that runs in worker processes of a pipe.

    Parameters
    ----------
    name : str
        Unique in its pipe.
    entry : str, optional
        Path of a script that the workers run.
    func : callable, optional
        Plain or ``async``:

        - a function of one value. Its result continues, unless it is None; a generator
          passes on each of its values. With a parameter annotated ``np.ndarray``, it
          gets plain arrays also for labelled ones, and its result gets the labels.
        - a class or an instance with ``process(value)``, and optionally ``setup()`` and
          ``teardown()``.
        - a generator function without parameters: a source.
        - any other function without parameters: it gets and emits values itself, with
          ``Processor(name)`` and `connect`.
    settings : ProcessorSettings, APIProcSettings or dict, optional
        The same as the keywords.
    config : dict, optional
        For the workers, as ``Processor(name).config``. JSON types.
    key : callable, str or int, optional
        Distributes values to several workers: all values of a key go to the same one,
        in order. A function of a value, or the index of the key in the value. A key is
        a number, text, bytes, None or a tuple of these. The function is called where
        values are put in, and must return the same each time.
    **keywords
        Any field of `ProcessorSettings`: ``workers=3, ordered=True, overlap=64``, ...

    Notes
    -----
    A declaration starts nothing. `connect`, `emit` and `get` are for its workers.

    Examples
    --------
    >>> import numpy as np
    >>> def double(block: np.ndarray) -> np.ndarray:
    ...     return 2 * block
    >>> Processor("double", func=double, workers=2, ordered=True)
    <Processor 'double', 2 workers>
    """

    def __init__(
        self,
        name: str,
        entry: str | None = None,
        func: Any = None,
        settings: Any = None,
        config: dict[str, Any] | None = None,
        *,
        key: Any = None,
        **keywords: Any,
    ) -> None:
        self._children: list[Processor] = []
        self._name = checked_name(name)
        if entry is not None and func is not None:
            raise ChildProcessError(
                f"processor {name!r}: give entry= and func=, not both"
            )
        self._entry = None if entry is None else str(entry)
        self.undecorated = func
        self._settings = settings_of(settings, keywords)
        self._key = None if key is None else Key.of(name, key)
        self._config = dict(config or {})
        try:
            self._config_text = json.dumps(self._config, sort_keys=True)
        except TypeError as error:
            raise TypeError(
                f"config of processor {name!r} must be JSON: {error}"
            ) from None
        self._kind: Kind | None = None
        self._code: Code | None = None
        if entry is not None:
            self._kind = "script"
        elif func is not None:
            self._kind = kind_of(func)

    @classmethod
    def of_code(
        cls,
        name: str,
        code: Code,
        settings: ProcessorSettings,
        config: dict[str, Any],
        key: Key | None = None,
    ) -> Processor:
        """Return the processor of a function in the form that travels."""
        made = cls(name, code.entry or None, None, settings, config)
        made._code, made._kind, made._key = code, code.kind, key
        return made

    # ---- attributes

    @property
    def name(self) -> str:
        """The name."""
        return self._name

    @property
    def kind(self) -> Kind | None:
        """'dialect', 'source', 'map', 'script', or None: it has nothing to run."""
        return self._kind

    @property
    def settings(self) -> ProcessorSettings:
        """The settings."""
        return self._settings

    @property
    def key(self) -> Key | None:
        """The key that distributes values to its workers, if it has one."""
        return self._key

    @property
    def config(self) -> dict[str, Any]:
        """The configuration for its workers; in a worker, that of its declaration."""
        io = self._io
        return dict(self._config if io is None else io.config)

    @property
    def id(self) -> str:
        """The name, and a digest of the configuration if it has one."""
        if not self._config:
            return self._name
        return f"{self._name}:{self.config_hash}"

    @property
    def config_hash(self) -> str:
        """A digest of the configuration."""
        return hashlib.md5(
            self._config_text.encode(), usedforsecurity=False
        ).hexdigest()

    def code(self) -> Code | None:
        """Return the function or script, in the form that travels."""
        if self._code is None and self._kind is not None:
            self._code = code_of(self.undecorated, self._entry)
        return self._code

    # ---- the graph

    def add(self, child: Processor) -> Processor:
        """Add a child, which gets the values that this processor emits; return it.

        Examples
        --------
        >>> a, b = Processor("a", func=abs), Processor("b", func=abs)
        >>> a.add(b).name
        'b'
        """
        if not isinstance(child, Processor):
            raise TypeError(f"add() needs a Processor, got {child!r}")
        if child not in self._children:
            self._children.append(child)
        return child

    def connect_to(self, *children: Processor) -> Self:
        """Add several children; return this processor."""
        for child in children:
            self.add(child)
        return self

    @property
    def children(self) -> tuple[Processor, ...]:
        """The children, in the order in which they were added."""
        return tuple(self._children)

    def get_child(self, name: str) -> Processor | None:
        """Return the child of that name, or None."""
        return next((c for c in self._children if c.name == name), None)

    def all_child_procs(self) -> list[Processor]:
        """Return every processor below this one, each once."""
        found: dict[int, Processor] = {}
        waiting = list(self._children)
        while waiting:
            child = waiting.pop(0)
            if id(child) not in found and child is not self:
                found[id(child)] = child
                waiting += child.children
        return list(found.values())

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the function in this process, as without `@processor`."""
        if self.undecorated is None:
            raise TypeError(f"processor {self._name!r} has no function to call")
        return self.undecorated(*args, **keywords)

    def __repr__(self) -> str:
        n = self._settings.workers
        return f"<Processor {self._name!r}, {n} worker{'s' * (n > 1)}>"


def processor(
    function: Any = None, /, *, name: str | None = None, **keywords: Any
) -> Any:
    """Decorate a function as a processor; bare, or with the keywords of `Processor`.

    Examples
    --------
    >>> @processor(workers=2)
    ... def double(value):
    ...     return 2 * value
    >>> double, double(4)
    (<Processor 'double', 2 workers>, 8)
    """

    def decorate(function: Callable[..., Any]) -> Processor:
        called = name or str(getattr(function, "__name__", type(function).__name__))
        return Processor(called, func=function, **keywords)

    return decorate if function is None else decorate(function)
