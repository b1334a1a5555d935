"""ApiContract: tests for every API of DataMux, here or on a server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import queue
import tempfile
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ataraxis.datamux import (
    END_OF_STREAM,
    Block,
    Faults,
    Field,
    LabelledBlock,
    Recording,
    Stream,
    open_recordings,
)
from ataraxis.datamux.contract import check_source
from ataraxis.datamux.simulation import Ramp
from ataraxis.datamux.source import STAMP
from ataraxis.errors import SourceNotFound
from ataraxis.stream import Consumer

ROWS = 400
WHICH = {"subject": "A"}
WAIT_S = 30.0


def write_eyes(folder: Path) -> None:
    """Write the collection "eyes": one recording at 1000 Hz; x counts, y is x / 2."""
    field = {"description": "", "dtype": "f64"}
    described = {
        "name": "eyes", "description": "", "keywords": [], "authors": [],
        "streams": {"gaze": {
            "name": "gaze", "description": "", "unit": "px", "frequency": 1000,
            "fields": {"x": {"name": "x", **field, "dtype": "i32"},
                       "y": {"name": "y", **field}},
            "index": {"t": {"name": "t", **field, "unit": "s"}},
        }},
        "groups": {"subject": {"description": "", "values": ["A"]}},
        "pattern": "csv://{subject}",
    }  # fmt: skip
    (folder / "eyes.collection.json").write_text(json.dumps(described))
    (folder / "eyes").mkdir()
    rows = [f"{5 + i / 1000:.6f},{i},{i / 2}" for i in range(ROWS)]
    (folder / "eyes" / "A.csv").write_text("\n".join(["t,x,y", *rows]) + "\n")


class ApiContract:
    """Tests of an `API`.

    Subclass it in a test module and give `make`; pytest runs the tests it inherits.
    """

    def make(self, folder: Path) -> AbstractContextManager[Any]:
        """Return a context manager of an API of the collections in a folder."""
        raise NotImplementedError

    @contextmanager
    def _api(self) -> Iterator[Any]:
        with tempfile.TemporaryDirectory() as name:
            write_eyes(Path(name))
            with self.make(Path(name)) as api:
                yield api

    # ---- lists

    def test_lists(self) -> None:
        """Collections and live nodes, and their streams, are described."""
        with self._api() as api:
            (collection,) = api.list_collections()
            assert (collection.id, collection.pattern) == ("eyes", "csv://{subject}")
            (stream,) = api.list_collection_streams(collection_id="eyes")
            assert (stream.id, stream.rate_hz) == ("gaze", 1000.0)
            assert stream.attrs["subject"] == "A"
            assert stream.fields["x"] == Field("x", dtype="i32")
            assert {"sim", "shared"} <= {node.id for node in api.list_live_nodes()}
            found = {s.id: s for s in api.list_live_streams(node_id="sim")}
            assert found["camera"].fields["frame"].shape == (48, 64)
            assert found["events"].rate_hz is None

    def test_what_is_missing_is_refused_in_the_call(self) -> None:
        """It raises the same error everywhere; the next call works."""
        sink: queue.Queue[Any] = queue.Queue()
        with self._api() as api:
            refused = [
                lambda: api.list_collection_streams("ears"),
                lambda: api.list_live_streams("nonsense"),
                lambda: api.replay_collection_stream("eyes", "blink", WHICH, sink),
                lambda: api.replay_collection_stream("eyes", "gaze", {}, sink),
                lambda: api.proxy_live_stream("sim", "nonsense", {}, sink),
                lambda: api.simulate_stream("ears", "gaze", None, sink),
                lambda: api.recording("eyes", "gaze", {"subject": "B"}),
                lambda: api.stop_task("d_nonsense"),
            ]
            for call in refused:
                _expect(SourceNotFound, call)
            replay = api.replay_collection_stream
            for wrong in ({"speed": 0}, {"block": -1}, {"start": 1e9}):
                _expect(
                    ValueError, replay, "eyes", "gaze", WHICH, sink, **wrong
                )  # fmt: skip
            _expect(TypeError, replay, "eyes", "gaze", WHICH, sink, tempo=2)
            _expect(TypeError, replay, "eyes", "gaze", WHICH, "no sink")
            _expect(ValueError, replay, "eyes", "gaze", WHICH, sink, deliver="odd")
            assert sink.empty()
            assert len(api.list_collections()) == 1

    # ---- replays

    def _replayed(self, api: Any, **options: Any) -> tuple[list[Any], Any]:
        sink: queue.Queue[Any] = queue.Queue()
        ack = api.replay_collection_stream("eyes", "gaze", WHICH, sink, **options)
        assert ack.status
        assert ack.randseq
        items = []
        while (item := sink.get(timeout=WAIT_S)) != END_OF_STREAM:
            items.append(item)
        assert ack.wait(WAIT_S) is item
        return items, item

    def test_a_replay_gives_every_sample_once(self) -> None:
        """In order, with its times, and then one end."""
        with self._api() as api:
            items, end = self._replayed(api, rate_limit=False)
            assert end is END_OF_STREAM
            assert [item["value"]["x"] for item in items] == [*range(ROWS)]
            assert type(items[0]["value"]["x"]) is int
            times = [item["index"]["t"] for item in items]
            np.testing.assert_allclose(times, np.arange(ROWS) / 1000, atol=1e-9)

    def test_options_of_a_replay(self) -> None:
        """Part, speed, loop, block, absolute times, deliveries, a transform."""
        with self._api() as api:
            items, _ = self._replayed(api, start=0.1, stop=0.2, speed=50.0)
            assert [i["value"]["x"] for i in items] == [*range(100, 200)]
            items, _ = self._replayed(api, rate_limit=False, loop=3, block=150)
            assert [i["value"]["x"] for i in items] == 3 * [*range(ROWS)]
            items, _ = self._replayed(api, rate_limit=False, use_relative_ts=False)
            assert items[0]["index"]["t"] == 5.0
            blocks, _ = self._replayed(
                api, rate_limit=False, block=150, deliver="block"
            )
            assert [len(b) for b in blocks] == [150, 150, 100]
            assert all(isinstance(b, Block) for b in blocks)
            assert [b.sequence for b in blocks] == [0, 150, 300]
            assert blocks[0].values["x"].dtype == np.int32
            assert blocks[0].t[0] == 5.0
            assert blocks[0].stream.attrs["subject"] == "A"
            (labelled,), _ = self._replayed(api, rate_limit=False, deliver="xarray")
            assert isinstance(labelled, LabelledBlock)
            assert labelled.dataset["y"].attrs["units"] == "px"
            items, _ = self._replayed(
                api, rate_limit=False, transform=lambda item: item["value"]["y"]
            )
            assert items == [i / 2 for i in range(ROWS)]

    def test_a_replay_is_steered(self) -> None:
        """It waits for `resume`, seeks, pauses, and is stopped."""
        sink: queue.Queue[Any] = queue.Queue()
        with self._api() as api:
            ack = api.replay_collection_stream(
                "eyes", "gaze", WHICH, sink, paused=True, loop=True
            )
            assert sink.empty()
            ack.task.seek(0.3)
            ack.task.resume()
            assert sink.get(timeout=WAIT_S)["value"]["x"] == 300
            ack.task.pause()
            assert ack.task.timeline.is_paused
            ack.task.resume()
            assert ack.reason is None
            assert api.stop_task(ack.randseq).status
            assert ack.wait(WAIT_S).reason == "stopped"
            assert api.stop_task(ack.randseq).status
            found = ack.task.statistics()
            assert found.samples > 0
            assert found.dropped == 0

    def test_two_replays_share_a_clock(self) -> None:
        """Pausing one pauses both."""
        one: queue.Queue[Any] = queue.Queue()
        two: queue.Queue[Any] = queue.Queue()
        with self._api() as api:
            replay = api.replay_collection_stream
            first = replay("eyes", "gaze", WHICH, one, paused=True)
            clock = first.task.timeline
            second = replay("eyes", "gaze", WHICH, two, timeline=clock)
            assert one.empty()
            assert two.empty()
            first.task.resume()
            for ack in (first, second):
                assert ack.wait(WAIT_S) is END_OF_STREAM
            assert one.qsize() == two.qsize() == ROWS + 1

    def test_a_recording_is_the_same(self) -> None:
        """Read completely, and replayed as an object."""
        sink: queue.Queue[Any] = queue.Queue()
        with self._api() as api:
            recording = api.recording("eyes", "gaze", WHICH)
            assert isinstance(recording, Recording)
            assert len(recording) == ROWS
            assert recording.t[0] == 5.0
            ack = api.replay(recording, sink, rate_limit=False)
            assert ack.wait(WAIT_S) is END_OF_STREAM
            assert sink.get()["value"] == {"x": 0, "y": 0.0}

    # ---- live streams and simulations

    def test_a_live_stream_runs_until_it_is_stopped(self) -> None:
        """Samples are numbered without gaps; the reason of the end is 'stopped'."""
        sink: queue.Queue[Any] = queue.Queue()
        with self._api() as api:
            ack = api.proxy_live_stream("sim", "ramp", {}, sink, deliver="block")
            blocks = [sink.get(timeout=WAIT_S) for _ in range(5)]
            for before, after in itertools.pairwise(blocks):
                assert after.sequence == before.sequence + len(before)
                assert after.arrived_ns is not None
            api.stop_task(ack.randseq)
            while (item := sink.get(timeout=WAIT_S)) != END_OF_STREAM:
                pass
            assert (item.reason, ack.reason) == ("stopped", "stopped")

    def test_a_live_stream_that_goes_away_is_lost(self) -> None:
        """The end has the reason and the error."""
        sink: queue.Queue[Any] = queue.Queue()
        attrs = {"faults": {"lost_after_s": 0.05}}
        with self._api() as api:
            ack = api.proxy_live_stream("sim", "sine", attrs, sink, patience=0)
            assert ack.wait(WAIT_S).reason == "lost"
            assert "went away" in str(ack.error)

    def test_simulations(self) -> None:
        """The same seed gives the same samples; faults and signals apply."""
        stream = Stream("s", frequency=1000, fields={"v": Field(dtype="f32")})
        with self._api() as api:

            def simulated(source: Any, **options: Any) -> list[Any]:
                sink: queue.Queue[Any] = queue.Queue()
                ack = api.simulate_stream(
                    source, "gaze" if source == "eyes" else "", WHICH, sink,
                    rate_limit=False, duration=0.5, **options,
                )  # fmt: skip
                assert ack.wait(WAIT_S) is END_OF_STREAM
                return [sink.get()["value"] for _ in range(sink.qsize() - 1)]

            plain = simulated(stream, signals={"v": Ramp(1.0, 1000.0)})
            assert [round(v["v"]) for v in plain] == [*range(500)]
            faulty = simulated(stream, seed=3, faults=Faults(dropout=0.5))
            assert 150 < len(faulty) < 350
            assert faulty == simulated(stream, seed=3, faults=Faults(dropout=0.5))
            guided = simulated("eyes", guided=True, seed=1)
            assert {v["x"] for v in guided} <= {*range(ROWS)}

    # ---- sinks

    def test_sinks_of_every_kind(self) -> None:
        """A function, a coroutine function, a bounded queue of asyncio."""
        got: list[Any] = []
        with self._api() as api:
            replay = api.replay_collection_stream
            replay("eyes", "gaze", WHICH, got.append, rate_limit=False).wait(WAIT_S)
            assert len(got) == ROWS + 1

            async def main() -> None:
                sink: asyncio.Queue[Any] = asyncio.Queue(maxsize=7)
                ack = await replay("eyes", "gaze", WHICH, sink, rate_limit=False)
                for k in range(ROWS):
                    item = await asyncio.wait_for(sink.get(), WAIT_S)
                    assert item["value"]["x"] == k
                assert await asyncio.wait_for(sink.get(), WAIT_S) == END_OF_STREAM
                assert (await ack.done()).reason == "completed"
                came: list[Any] = []

                async def take(item: Any) -> None:
                    came.append(item)

                ack = await replay("eyes", "gaze", WHICH, take, rate_limit=False)
                await ack.done()
                assert len(came) == ROWS + 1

            asyncio.run(main())

    def test_a_live_stream_is_read_by_its_opener(self) -> None:
        """In blocks of any size, each sample once, with the source's counter."""
        with self._api() as api:
            _expect(SourceNotFound, api.open_source, "sim", "no_such")

            def ramp() -> Any:
                source = api.open_source("sim", "ramp")
                source.close()  # as if it was not opened yet
                return source

            check_source(ramp)
            source = api.open_source("sim", "ramp")
            try:
                got: list[int] = []
                numbers: list[int] = []
                out = np.empty((7, *source.labels.shape), source.labels.dtype)
                stamps = np.zeros(7, STAMP)
                while len(got) < 50:
                    n = source.read_into(out, stamps, timeout=WAIT_S)
                    got += out[:n, 0].tolist()
                    numbers += stamps["device_sequence"][:n].tolist()
            finally:
                source.close()
            assert got == [*range(got[0], got[0] + len(got))]
            assert np.diff(numbers).tolist() == [1] * (len(numbers) - 1)

    def test_a_live_stream_is_recorded(self) -> None:
        """Into a stream of shared memory and a journal here."""
        with tempfile.TemporaryDirectory() as place, self._api() as api:
            ack = api.record_live_stream("sim", "ramp", {}, place, "contract-ramp")
            with Consumer("contract-ramp") as reader:
                frame = reader.receive(timeout=WAIT_S)
                assert frame is not None
                assert frame.array.shape == (4,)
                frame.release()
            api.stop_task(ack.randseq)
            assert ack.wait(WAIT_S).reason == "stopped"
            count = ack.task.statistics().delivered
            ack.task.sink.close()
            recording = open_recordings(place)["contract-ramp"]
            assert len(recording) == count
            first = np.rint(recording.read().values["ch0"])
            assert (np.diff(first) == 1).all()

    def test_a_slow_reader_holds_a_replay_up(self) -> None:
        """A bounded sink loses nothing."""
        sink: queue.Queue[Any] = queue.Queue(3)
        with self._api() as api:
            replay = api.replay_collection_stream
            replay("eyes", "gaze", WHICH, sink, rate_limit=False)
            got = [sink.get(timeout=WAIT_S)["value"]["x"] for _ in range(ROWS)]
            assert got == [*range(ROWS)]
            assert sink.get(timeout=WAIT_S) is END_OF_STREAM

    def test_what_a_full_sink_drops_is_counted(self) -> None:
        """With `on_full`, and with its old name `policy`; not with both."""
        with self._api() as api:
            replay = api.replay_collection_stream
            for name in ("on_full", "policy"):
                full: queue.Queue[Any] = queue.Queue(3)
                option: dict[str, Any] = {name: "drop_newest"}
                ack = replay("eyes", "gaze", WHICH, full, rate_limit=False, **option)
                taken = []
                while (item := full.get(timeout=WAIT_S)) != END_OF_STREAM:
                    taken.append(item["value"]["x"])
                assert taken == sorted(set(taken))
                assert ack.task.statistics().dropped == ROWS - len(taken)
            both = {"on_full": "raise", "policy": "raise"}
            _expect(ValueError, replay, "eyes", "gaze", WHICH, full, **both)
            _expect(ValueError, api.proxy_live_stream, "sim", "ramp", {}, full, **both)
            _expect(ValueError, api.simulate_stream, "eyes", "gaze", sink=full, **both)

    def test_a_sink_that_fails_ends_the_stream(self) -> None:
        """With the sink's error."""

        def refuse(item: Any) -> None:
            if item != END_OF_STREAM:
                raise LookupError("full up")

        with self._api() as api:
            ack = api.replay_collection_stream("eyes", "gaze", WHICH, refuse)
            assert ack.wait(WAIT_S).reason == "failed"
            assert "full up" in str(ack.error)

    def test_the_end_of_the_api_ends_its_streams(self) -> None:
        """No stream continues, and no thread is left."""
        before = threading.active_count()
        sink: queue.Queue[Any] = queue.Queue()
        with self._api() as api:
            ack = api.proxy_live_stream("sim", "sine", {}, sink)
        assert ack.wait(WAIT_S).reason == "stopped"
        assert threading.active_count() <= before


def _expect(kind: type[Exception], call: Any, *args: Any, **options: Any) -> None:
    with contextlib.suppress(kind):
        call(*args, **options)
        raise AssertionError(f"expected {kind.__name__}")
