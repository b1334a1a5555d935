"""Unions: which member of ``Camera | Board`` a node or a value is.

The first member that fits wins, exact fits before wider ones. Where that would choose
another member than the one written, the writer adds a local tag (``!Board``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ataraxis.config.node import Mapping, Node, Scalar, Sequence
from ataraxis.config.problem import ConfigProblem, did_you_mean
from ataraxis.config.schema import (
    NoneType,
    container_of,
    is_dataclass_type,
    type_name,
)

if TYPE_CHECKING:
    from ataraxis.config.reader import Reader
    from ataraxis.config.writer import Writer


def tags_of(alternatives: tuple[Any, ...]) -> list[str]:
    """Name each member with a tag: its own name, numbered where two are alike."""
    names = [_base_name(member) for member in alternatives]
    return [
        f"!{name}" if names.count(name) == 1 else f"!{name}-{position}"
        for position, name in enumerate(names, start=1)
    ]


def _base_name(member: Any) -> str:
    origin = container_of(member)[0]
    name = getattr(origin, "__name__", None) or str(origin).rpartition(".")[2]
    return "".join(c if c.isalnum() and c.isascii() else "-" for c in name)


def read_union(
    reader: Reader, node: Node, alternatives: tuple[Any, ...], field: str
) -> Any:
    """Read a node as the member it is; else report what is nearest."""
    tags = tags_of(alternatives)
    if node.tag and node.tag != "!!set":
        if node.tag in tags:
            return reader.read_member(node, alternatives[tags.index(node.tag)], field)
        return reader.refuse(
            node,
            field,
            " | ".join(map(type_name, alternatives)),
            f"tag '{node.tag}'",
            did_you_mean(node.tag, tags) or "the tags are " + ", ".join(tags),
        )
    trials: list[list[ConfigProblem]] = []
    for exact in _passes(reader.settings.exact):
        trials.clear()
        for member in alternatives:
            trial = _trial(reader, exact)
            value = trial.read_member(node, member, field)
            if not trial.problems:
                return value
            trials.append(trial.problems)
    _report(reader, node, alternatives, trials, field)
    return _unread(reader, node, field)


def _passes(exact: bool) -> tuple[bool, ...]:
    """Try exact fits, then wider ones; inside an exact try only once.

    Trying twice at every level would double the work with every level of nesting.
    """
    return (True,) if exact else (True, False)


def chosen(reader: Reader, node: Node, alternatives: tuple[Any, ...]) -> int:
    """Tell the position of the member that reading an untagged node chooses."""
    for exact in _passes(reader.settings.exact):
        for position, member in enumerate(alternatives):
            trial = _trial(reader, exact)
            trial.read_member(node, member, "")
            if not trial.problems:
                return position
    return -1


def _trial(reader: Reader, exact: bool) -> Reader:
    """Make a reader whose problems count for nothing."""
    settings = replace(reader.settings, exact=exact or reader.settings.exact, lax=False)
    return type(reader)(settings)


def _unread(reader: Reader, node: Node, field: str) -> Any:
    """End without a value; a lax reader keeps what the file says."""
    from ataraxis.config.reader import UNREAD

    if not reader.settings.lax:
        return UNREAD
    problem = reader.problems.pop()
    return reader.keep(node, field, problem)


def _report(
    reader: Reader,
    node: Node,
    alternatives: tuple[Any, ...],
    trials: list[list[ConfigProblem]],
    field: str,
) -> None:
    """Note the problems of the closest member of the node's own shape."""
    alike = [
        (len(problems), position)
        for position, problems in enumerate(trials)
        if _alike(node, alternatives[position])
    ]
    everything = " | ".join(map(type_name, alternatives))
    if not alike or reader.settings.lax:
        from ataraxis.config.reader import described

        hints = [problem.hint for problems in trials for problem in problems]
        hint = next(filter(None, hints), "") if not alike else ""
        problem = ConfigProblem(
            str(reader.settings.path),
            node.line or None,
            field,
            everything,
            described(node),
            hint,
        )
        reader.problems.append(problem)
        return
    position = min(alike)[1]
    closest = f"closest of {everything}: {type_name(alternatives[position])}"
    for problem in trials[position]:
        hint = f"{problem.hint}; {closest}" if problem.hint else closest
        reader.problems.append(replace(problem, hint=hint))


def _alike(node: Node, member: Any) -> bool:
    """Tell whether a member has the shape of the node."""
    origin = container_of(member)[0]
    if isinstance(node, Mapping):
        return is_dataclass_type(member) or origin is dict
    if isinstance(node, Sequence):
        return origin in (list, tuple, set, frozenset)
    return False


def write_union(
    writer: Writer, value: Any, alternatives: tuple[Any, ...], field: str
) -> Node | None:
    """Write a value as the member it is, tagged where reading would differ."""
    trials: list[tuple[int, list[ConfigProblem]]] = []
    for exact in _passes(writer.exact):
        trials.clear()
        for position, member in enumerate(alternatives):
            trial = writer.trial(exact)
            node = trial.write_member(value, member, field)
            if node is None:
                trials.append((position, trial.problems))
                continue
            if chosen(writer.checker(), node, alternatives) != position:
                node.tag = tags_of(alternatives)[position]
                if isinstance(node, Scalar) and node.kind == "null":
                    node.tag = ""
            return node
    own = [
        problems
        for position, problems in trials
        if is_dataclass_type(alternatives[position])
        and writer.is_of(value, alternatives[position])
    ]
    if own:
        writer.problems.extend(own[0])
        return None
    names = [member for member in alternatives if member is not NoneType]
    everything = " | ".join(map(type_name, [*names, *alternatives[len(names) :]]))
    return writer.refuse(value, field, everything)
