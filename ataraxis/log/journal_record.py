"""Records that a journal keeps about itself, between the frames of its sources.

Each is a frame of source 4294967295 whose payload is a JSON object with "record": what
it is. They count as no entries.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from ataraxis.clock import Anchor, now_ns
from ataraxis.errors import CorruptFrame, LayoutError
from ataraxis.frame import DType, Frame
from ataraxis.labels import Labels

CONTROL_SOURCE = 2**32 - 1


@dataclass(frozen=True)
class Gap:
    """Frames that a source made and the journal has not."""

    source: int
    """Whose frames."""
    first: int
    """Sequence of the first one that is missing."""
    count: int
    """How many."""
    reason: str
    """Why, as far as is known."""
    time_ns: int = 0
    """When it was noticed, monotonic ns."""


def encode_record(kind: str, content: dict[str, Any], sequence: int) -> bytes:
    """Write a record as a frame."""
    tree = {"record": kind, **content}
    frame = Frame.from_value(
        tree, DType.JSON, source=CONTROL_SOURCE, sequence=sequence, time_ns=now_ns()
    )
    return frame.to_bytes()


def labels_record(number: int, labels: Labels) -> dict[str, Any]:
    """Say what a labels id means from here on."""
    return {"id": number, "labels": json.loads(labels.to_json())}


def anchor_record(anchor: Anchor) -> dict[str, Any]:
    """Say which wall time it is."""
    return asdict(anchor)


class Notes:
    """What the records of one file say, gathered in their order."""

    def __init__(self) -> None:
        self.labels: dict[int, Labels] = {}
        """By their id in this file."""
        self.sources: dict[int, dict[str, Any]] = {}
        """By number: name, labels id, and what else was said of it."""
        self.anchors: list[Anchor] = []
        """Of each minute."""
        self.gaps: list[Gap] = []
        """Frames known to be missing."""
        self.close: dict[str, Any] | None = None
        """What the writer said when it closed the file; None: it has not."""

    def take(self, frame: Frame) -> None:
        """Add what a record says; unknown kinds are passed over.

        Raises
        ------
        CorruptFrame
            It is none of ours.
        """
        tree = frame.value
        try:
            kind = tree["record"]
            if kind == "labels":
                text = json.dumps(tree["labels"]).encode()
                self.labels[int(tree["id"])] = Labels.from_json(text)
            elif kind == "source":
                self.sources[int(tree["source"])] = tree
            elif kind == "anchor":
                fields = {k: v for k, v in tree.items() if k != "record"}
                self.anchors.append(Anchor(**fields))
            elif kind == "gap":
                fields = {k: v for k, v in tree.items() if k != "record"}
                self.gaps.append(Gap(**{**fields, "time_ns": frame.time_ns}))
            elif kind == "close":
                self.close = tree
        except (KeyError, TypeError, ValueError, LayoutError) as error:
            raise CorruptFrame(
                f"record {frame.sequence} of the journal: {error!r}"
            ) from error
