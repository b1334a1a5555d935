"""One thing wrong with a configuration, and the error that carries all of them.

Nothing here reads a file: readers and writers collect problems and raise once.
"""

from __future__ import annotations

from collections import abc
from collections.abc import Iterable
from dataclasses import dataclass

from ataraxis.errors import ConfigError

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """Where a configuration does not fit, and how.

    Parameters
    ----------
    path : str
        The file.
    line : int or None
        Line in the file, from 1; ``None`` when a value could not be written.
    field : str
        Path of the field, as ``cameras[1].fps``; empty for the whole file.
    expected : str
        What the dataclass asks for.
    found : str
        What is there.
    hint : str
        What to do, as ``did you mean 'fps'?``; may be empty.

    Examples
    --------
    >>> print(ConfigProblem("rig.yaml", 3, "fps", "float", "str 'fast'"))
    rig.yaml:3: fps: expected float, found str 'fast'
    """

    path: str
    line: int | None
    field: str
    expected: str
    found: str
    hint: str = ""

    def __str__(self) -> str:
        """Say it on one line, as compilers do."""
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        what = f"{self.field}: " if self.field else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}: {what}expected {self.expected}, found {self.found}{hint}"


def config_error(title: str, problems: Iterable[ConfigProblem]) -> ConfigError:
    """Make the one error of many problems, in the order of their lines."""
    ordered = sorted(problems, key=lambda problem: problem.line or 0)
    return ConfigError("\n".join([title, *map(str, ordered)]), ordered)


def shown(value: object) -> str:
    """Quote a value for a message, shortened so that it stays one line."""
    try:
        text = repr(value)
    except Exception as error:  # a message about a value must not fail on it
        text = f"<{type(error).__name__} in repr>"
    text = " ".join(text.split())
    if len(text) > _SHOWN_CHARACTERS:
        text = text[: _SHOWN_CHARACTERS - 3] + "..."
    return text


def did_you_mean(word: str, choices: abc.Sequence[str]) -> str:
    """Offer the nearest choice, or nothing when none is near."""
    import difflib

    folded = {choice.casefold(): choice for choice in reversed(choices)}
    near = difflib.get_close_matches(word.casefold(), list(folded), n=1)
    return f"did you mean {folded[near[0]]!r}?" if near else ""
