"""A viewer is not a reader: nothing waits for it, or is content with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ataraxis import Consumer, Producer, Session, replay


def watching(stream: str) -> Consumer:
    return Consumer(stream, policy="lossy", start="latest", label="view")


def test_who_waits_for_readers_does_not_count_viewers(context: Path) -> None:
    with Producer("probe", shape=()) as probe:
        with watching("probe"):
            assert probe.subscriber_count == 0
            with pytest.raises(TimeoutError, match="0 of 1 consumers"):
                probe.wait_for_subscribers(1, timeout=0.05)
            (seen,) = probe.statistics().readers
            assert seen.is_viewer
            with Consumer("probe", policy="lossy", label="other") as other:
                assert probe.wait_for_subscribers(1, timeout=1) == 1
                seen = probe.statistics().readers
                assert {r.label for r in seen if r.is_viewer} == {"view"}
                other.close()
            with Consumer("probe", policy="latest", label="view"):
                assert probe.subscriber_count == 1, "a label alone makes no viewer"
        probe.unlink()


def test_a_replay_waits_for_readers_and_leaves_no_name_to_viewers(
    tmp_path: Path, context: Path
) -> None:
    with Producer("probe", shape=()) as probe:
        with Session("m42", directory=tmp_path) as session:
            session.record("probe")
            for k in range(5):
                probe.send(float(k))
        probe.unlink()
    with replay(session.directory, streams=["probe"], readers=1, timeout=20):
        view = watching("probe")
        with pytest.raises(TimeoutError):
            view.receive(timeout=0.1)
        with Consumer("probe") as reader:
            assert [float(frame.array) for frame in reader] == [0, 1, 2, 3, 4]
    assert not (context / "probe").exists()
    view.close()
