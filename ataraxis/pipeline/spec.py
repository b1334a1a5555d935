"""What a worker receives when it starts, in a form that travels to its process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ataraxis.pipeline.function import Code
from ataraxis.pipeline.partition import Key

WINDOW = 128
"""Size of the ordering window: how many numbers of a lane may be out of order."""


@dataclass(frozen=True)
class Target:
    """The input queues of a processor, for the processes that put into them."""

    name: str
    """Name of the processor; '' is the pipe's end."""
    index: int
    """Index of the processor; of the pipe's end, the number of processors."""
    queues: tuple[str, ...]
    """One queue for all workers, or one each."""
    on_full: str = "block"
    allow_pickle: bool = False
    overlap: int = 0
    split: bool = False
    key: Key | None = None
    """Selects the queue of a value."""
    ends: tuple[tuple[int, tuple[int, ...]], ...] = ()
    """Where values that enter here are resequenced; see `graph.ordering_windows`."""
    is_end: bool = False
    marks_calls: bool = False
    """Whether its workers emit themselves, and must see which values are calls."""
    workers: int = 1


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a worker has to know."""

    run: str
    """Name of the run, and of its status board."""
    context: str
    processor: str
    index: int
    worker: int
    """Which of the processor's workers, from 0."""
    row: int
    """Its row of the board."""
    code: Code
    config: dict[str, Any]
    inbox: str
    """Name of its input queue; '': none."""
    targets: tuple[Target, ...]
    ordered_parents: tuple[int, ...] = ()
    """Parents whose frames it puts in order."""
    tells_gaps: bool = False
    """Whether it sends a gap for a value without a result."""
    fills_gaps: bool = False
    """Whether it also sends gaps for values that were dropped before it."""
    has_sink: bool = False
    """Whether results are sent to the pipe's end although no caller waits for them."""
    max_batch: int = 1
    max_wait: float = 0.0
    on_error: str = "fail"
    attempts: int = 3
    allow_pickle: bool = False
    dead_letters: str = ""
    """Directory of the dead letters."""
    gpu: str | None = None
    """Its GPU, as CUDA_VISIBLE_DEVICES names it."""
    threads: int | None = 1
    generation: int = 0
    """How often the worker was started before."""
    is_resumed: bool = False
    """Whether a process before was lost with its host: what that one has finished last
    may not be known here."""
    is_counted: bool = False
    """Whether each number that it has done arrives at the pipe's end."""
    host: str = ""
    """The host that runs it; '': that of the run."""
    is_foreign: bool = False
    """Whether another host has sent it: its functions are those of listed modules."""

    def codes(self) -> Iterator[tuple[str, Code]]:
        """Iterate over all code that it runs, each with what it is, in words."""
        yield f"processor {self.processor!r}", self.code
        for target in self.targets:
            if target.key is not None and target.key.code is not None:
                yield f"key= of processor {target.name!r}", target.key.code

    def to_bytes(self) -> bytes:
        """Return it as JSON; functions without a module are cloudpickle in base64."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["code"] = self.code.as_dict()
        fields["targets"] = [_target_fields(target) for target in self.targets]
        return json.dumps(fields, separators=(",", ":")).encode()

    @staticmethod
    def from_bytes(data: bytes) -> WorkerSpec:
        """Read what `to_bytes` wrote; nothing is unpickled before `Code.load`.

        Raises
        ------
        ValueError
            The bytes are not the JSON of a worker.
        """
        try:
            fields = json.loads(data)
            made = {f.name: _checked(f, fields[f.name]) for f in _FIELDS}
            made["code"] = Code.from_dict(fields["code"])
            made["targets"] = tuple(_target_of(each) for each in fields["targets"])
            made["ordered_parents"] = tuple(int(k) for k in fields["ordered_parents"])
            return WorkerSpec(**made)
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"invalid specification of a worker: {error!r}") from error


_FIELDS = dataclasses.fields(WorkerSpec)
_TARGET_FIELDS = dataclasses.fields(Target)
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "bool": (bool,), "float": (int, float),
    "int | None": (int, type(None)), "dict[str, Any]": (dict,),
    "str | None": (str, type(None)),
}  # fmt: skip


def _checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return a value of JSON that has its field's type, or raise `TypeError`."""
    kinds = _KINDS.get(str(field.type), (object,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and int in kinds):
        raise TypeError(f"{field.name} must be {field.type}, got {value!r:.60}")
    return value


def _target_fields(target: Target) -> dict[str, Any]:
    found = {f.name: getattr(target, f.name) for f in _TARGET_FIELDS}
    found["key"] = None if target.key is None else target.key.as_dict()
    return found


def _target_of(fields: dict[str, Any]) -> Target:
    made = {f.name: _checked(f, fields[f.name]) for f in _TARGET_FIELDS}
    made["queues"] = tuple(str(name) for name in fields["queues"])
    made["ends"] = tuple(
        (int(last), tuple(int(k) for k in path)) for last, path in fields["ends"]
    )
    key = fields["key"]
    made["key"] = None if key is None else Key.from_dict(key)
    return Target(**made)
