"""The watch: one verdict in words, and what it is made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workers_pipe import double

from ataraxis import Consumer, Pipe, Processor, Producer, Session
from ataraxis.clock import now_ns
from ataraxis.stream.inspector import Inspector
from ataraxis.viewer.watch import StreamWatch, verdict_of


def stream(name: str = "probe", **more: Any) -> dict[str, Any]:
    found = {"name": name, "problem": "", "lost": 0, "is_stalled": False,
             "is_ended": False, "readers": []}  # fmt: skip
    return {**found, **more}


def reader(label: str = "session-1", **more: Any) -> dict[str, Any]:
    found = {"label": label, "is_durable": True, "away_s": None, "lost": 0}
    return {**found, **more}


@pytest.mark.parametrize(
    ("streams", "tone", "text"),
    [
        ([], "", "no streams yet"),
        ([stream()], "", "live, not recorded"),
        ([stream(is_ended=True)], "", "ended"),
        ([stream(readers=[reader()])], "good", "recording · nothing missing"),
        ([stream(lost=12), stream("cam", lost=1)], "bad",
         "13 frames lost · probe, cam"),
        ([stream(lost=1)], "bad", "1 frame lost · probe"),
        ([stream(readers=[reader(lost=3)])], "bad", "3 frames not recorded · probe"),
        ([stream(readers=[reader(away_s=2.0)])], "bad",
         "the recorder is away; frames are kept"),
        ([stream(readers=[reader("other", away_s=2.0)])], "bad",
         "other is away; frames are kept"),
        ([stream(is_stalled=True)], "warn", "probe waits for readers"),
        ([stream(is_stalled=True), stream("cam", is_stalled=True)], "warn",
         "probe, cam wait for readers"),
        ([stream(f"s{k}", lost=1) for k in range(5)], "bad",
         "5 frames lost · s0, s1, s2 and 2 more"),
        ([stream(problem="damaged"), stream()], "bad", "probe cannot be read"),
    ],
)  # fmt: skip
def test_the_verdict(streams: list[dict[str, Any]], tone: str, text: str) -> None:
    assert verdict_of(streams) == {"tone": tone, "text": text}


def test_a_stalled_producer_and_a_refusal_are_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ataraxis.viewer.watch._LEAST_S", 0.0)
    with Producer("probe", shape=(), on_full="drop_newest", buffer_count=4) as probe:
        watch = StreamWatch(None)
        with Consumer("probe", policy="lossless", label="slow"):
            watch.look()
            for k in range(6):
                probe.send(float(k))
            words = watch.look()
        assert words["verdict"]["text"] == "2 frames lost · probe"
        (found,) = words["streams"]
        assert (
            found["readers"][0] | {"lag": 4, "policy": "lossless"}
            == found["readers"][0]
        )
        assert [beat[2] for beat in watch.beats["probe"]] == [0.0]
        watch.look()
        assert [beat[2] for beat in watch.beats["probe"]] == [0.0, 1.0]
        monkeypatch.setattr("ataraxis.viewer.watch._LEAST_S", 3600.0)
        watch.look()
        assert len(watch.beats["probe"]) == 2, "a rate over a moment is not drawn"
        probe.unlink()
    assert watch.look()["streams"] == []
    assert watch.beats == watch.ids == {}


def test_what_is_said_is_json_and_takes_part_in_nothing(tmp_path: Path) -> None:
    with Producer(
        "probe", shape=(4, 2), dtype="i2", dims=("time", "channel"),
        coords={"channel": ["a<b>", "c"]},
        attrs={"sample_rate_hz": 1000, "units": "uV"},
    ) as probe:  # fmt: skip
        with Session("m42", directory=tmp_path) as session:
            session.record("probe")
            probe.send(np.zeros((4, 2), "i2"))
            words = StreamWatch(None).look()
            assert len(Inspector("probe").statistics().readers) == 1
        text = json.dumps(words, allow_nan=False)
        assert "recording" in text
        about = words["labels"][words["streams"][1]["id"]]
        assert about == {
            "what": "int16 4×2", "kind": "traces", "rate": 1000.0, "units": "uV",
            "dim": "channel", "names": ["a<b>", "c"], "dtype": "int16",
        }  # fmt: skip
        probe.unlink()


def test_a_stream_of_bytes_is_not_drawn() -> None:
    with Producer("raw", 64, 8) as raw:
        (found,) = StreamWatch(None).look()["streams"]
        assert (found["what"], found["kind"]) == ("bytes, at most 64", "")
        raw.unlink()


def test_pipes_are_seen_with_their_workers() -> None:
    pipe = Pipe("doubled")
    pipe.add(Processor("first", func=double, workers=2)).add(
        Processor("second", func=double)
    )
    with pipe.run() as run:
        assert run.call(3) == 12
        watch = StreamWatch(None)
        (found,) = watch.look()["pipes"]
        assert (found["pipe"], found["run"]) == ("doubled", run.name)
        first, second = found["steps"]
        assert (first["workers"], first["children"]) == (2, ["second"])
        assert (second["workers"], second["dead_letters"]) == (1, 0)
        run.stop()
    assert watch.look()["pipes"] == []


@pytest.mark.parametrize("names", [(), ("probe",)])
def test_the_session_is_named_and_its_events_are_followed(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    watch = StreamWatch(None, names)
    assert "session" not in watch.look()["about"]
    with Session("m42_day3", directory=tmp_path):
        words = watch.look()
        about = words["about"]
        assert about["session"] == "m42_day3"
        assert about["directory"] == str(tmp_path / "m42_day3")
        assert 0 < now_ns() - about["begun_ns"] < 10**12
        assert watch.ids["events"]
        assert [s["name"] for s in words["streams"]] == ([] if names else ["events"])
        json.dumps(words)
    assert "session" not in watch.look()["about"]
