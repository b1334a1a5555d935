"""The recorded clocks of other hosts, and times on them."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deadline import wait_until

from ataraxis import Consumer, LogArchive, Producer, Recorder
from ataraxis.clock import Anchor, Offset, boot_id
from ataraxis.link.clocks import ClockPublisher
from ataraxis.log.clock_table import clock_of
from ataraxis.log.export.export import export_log
from ataraxis.log.host_times import ClockTable, read_tables
from ataraxis.log.verification import verify

xr = pytest.importorskip("xarray")
S = 10**9
AHEAD = 5000 * S
DRIFT = 20e-6
Place = tuple[Path, Path]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A context, and the directory of a log."""
    context = tmp_path / "context"
    context.mkdir(mode=0o700)
    return context, tmp_path / "log"


def offset_at(local: float) -> float:
    """Return the true offset of acq at a local time."""
    return AHEAD + DRIFT * local


def to_acq(local: int) -> int:
    return round(local + offset_at(local))


def publish(publisher: ClockPublisher, local: int, boot: str = "boot-1") -> None:
    """Publish the clock of acq with an error that the bound covers."""
    error = 400 if local // S % 2 else -400
    known = Offset(round(offset_at(local)) + error, 500, local, "acq", DRIFT, 3e-6, S)
    assert publisher.publish(known, local, boot), publisher.error


def mirrored(context: Path, name: str = "camera", **options: Any) -> Producer:
    """Be the mirror of a stream of acq."""
    attrs = {"clock": "acq/boot-1", **options.pop("attrs", {})}
    return Producer(
        name, context=context, attrs=attrs,
        **{"shape": (), "dtype": "i8", **options},
    )  # fmt: skip


def record(place: Place, *names: str) -> Recorder:
    return Recorder(names or "camera", place[1], context=place[0])


def has_rows(recorder: Recorder, rows: int) -> Callable[[], bool]:
    def found() -> bool:
        statistics = recorder.statistics().get("clock.acq")
        return statistics is not None and statistics.frames >= rows

    return found


def recording(place: Place, *, seconds: int = 20) -> None:
    """Record frames of acq, and local ones at the same moments, and the clock."""
    context, _ = place
    camera, licks = (
        mirrored(context),
        Producer("licks", shape=(), dtype="i8", context=context),
    )
    publisher = ClockPublisher(context, "acq", "gpu")
    with record(place, "camera", "licks") as recorder:
        for second in range(100, 100 + seconds):
            publish(publisher, second * S)
            for k in range(10):
                local = second * S + k * S // 10
                camera.send(np.int64(k), time_ns=to_acq(local))
                licks.send(np.int64(k), time_ns=local)
        wait_until(has_rows(recorder, seconds), 20)
    camera.unlink()
    licks.unlink()
    publisher.close()


# ---- whose clock


def test_a_consumer_names_the_clock_of_its_stamps(tmp_path: Path) -> None:
    own = Producer("own", 8, 4, context=tmp_path)
    other = mirrored(tmp_path)
    readers = [Consumer(name, context=tmp_path) for name in ("own", "camera")]
    assert readers[0].clock == f"{Anchor.take(1).host}/{boot_id()}"
    assert readers[1].clock == "acq/boot-1"
    assert clock_of(readers[1].labels) == ("acq", "boot-1")
    for one in (*readers, own, other):
        one.close()


# ---- recorded by itself


def test_a_recorder_of_a_mirror_records_the_clock(place: Place) -> None:
    recording(place)
    found = read_tables(place[1])
    assert [*found] == ["acq"]
    assert len(found["acq"]) == 20
    assert found["acq"].local_name == "gpu"
    assert set(found["acq"].boots) == {"boot-1"}
    report = verify(place[1])
    assert report.is_complete
    assert {s.name for s in report.sources} == {"camera", "licks", "clock.acq"}


def test_the_clock_may_appear_later_end_and_come_back(place: Place) -> None:
    context, directory = place
    camera = mirrored(context)
    with record(place) as recorder:
        camera.send(np.int64(1))
        for turn in range(3):
            publisher = ClockPublisher(context, "acq")
            publish(publisher, (100 + turn) * S)
            wait_until(has_rows(recorder, turn + 1), 20)
            publisher.close()
        found = recorder.statistics()["clock.acq"]
        assert found.is_clock
        assert found.parts == 3
        assert not recorder.statistics()["camera"].is_clock
    assert len(read_tables(directory)["acq"]) == 3
    camera.unlink()


def test_without_the_clock_the_recording_goes_on(place: Place) -> None:
    context, directory = place
    camera = mirrored(context)
    with record(place) as recorder:
        camera.send(np.int64(1))
        camera.close()
        assert recorder.wait(20)
        assert recorder.statistics()["clock.acq"].frames == 0
    assert read_tables(directory) == {}
    assert not list(directory.glob("clock*"))
    with pytest.raises(ValueError, match=r"no table of its clock.*record 'clock\.acq'"):
        xr.open_dataset(directory, engine="ataraxis", clock=Anchor.take(1).host)
    with LogArchive(directory) as archive, pytest.raises(ValueError, match="no table"):
        archive.to_clock("camera", np.array([1]), Anchor.take(1).host)


def test_several_recorders_of_one_directory_write_one_table(place: Place) -> None:
    """The second goes on when the first has ended, without a row twice."""
    context, directory = place
    made = [mirrored(context, name) for name in ("a", "b", "c")]
    publisher = ClockPublisher(context, "acq")
    publish(publisher, 100 * S)
    recorders = [record(place, name) for name in ("a", "b", "c")]

    def rows() -> int:
        return sum(r.statistics()["clock.acq"].frames for r in recorders)

    wait_until(lambda: rows() == 1, 20)
    publish(publisher, 101 * S)
    wait_until(lambda: rows() == 2, 20)
    first = next(r for r in recorders if r.statistics()["clock.acq"].frames)
    first.stop()
    publish(publisher, 102 * S)
    wait_until(lambda: rows() == 3, 20)
    for recorder in recorders:
        recorder.stop()
    assert len(read_tables(directory)["acq"]) == 3
    report = verify(directory)
    assert report.is_complete
    assert all(source.repeated == 0 for source in report.sources)
    for producer in made:
        producer.unlink()
    publisher.close()


def test_a_clock_that_is_asked_for_is_a_stream_like_others(place: Place) -> None:
    context, directory = place
    camera, publisher = mirrored(context), ClockPublisher(context, "acq")
    publish(publisher, 100 * S)
    with record(place, "camera", "clock.acq") as recorder:
        wait_until(has_rows(recorder, 1), 20)
        assert not recorder.statistics()["clock.acq"].is_clock
    assert len(read_tables(directory)["acq"]) == 1
    camera.unlink()
    publisher.close()


# ---- times


def test_times_of_a_mirror_on_the_clock_here(place: Place) -> None:
    """`time_gpu` of frames of acq are the times at which licks came."""
    recording(place)
    with xr.open_datatree(place[1], engine="ataraxis", clock="gpu") as tree:
        camera, licks = tree["camera"].to_dataset(), tree["licks"].to_dataset()
        assert licks["time"].dtype == "M8[ns]"
        # The time of a mirror is that of its own clock, and never that of another.
        assert camera["time"].dtype == "m8[ns]"
        assert (camera["time"].astype("i8") == camera["monotonic_ns"]).all()
        assert "acq" in camera["time"].attrs["long_name"]
        here = camera["time_gpu"]
        assert here.dtype == "M8[ns]"
        assert here.dims == ("time",)
        away = np.abs((here.values - licks["time"].values).astype("i8"))
        assert away.max() <= here.attrs["bound_ns"] < 10_000
        assert (licks["time_gpu"].values == licks["time"].values).all()
        assert licks["time_gpu"].attrs["bound_ns"] == 0
        assert "time_gpu" not in tree["clock.acq"].to_dataset()
        copy = pickle.loads(pickle.dumps(camera))
        assert (copy["time_gpu"].values == here.values).all()
        part = camera.isel(time=slice(5, 9))["time_gpu"]
        assert (part.values == here.values[5:9]).all()


def test_local_times_on_the_clock_of_another_host(place: Place) -> None:
    recording(place)
    with xr.open_dataset(
        place[1], engine="ataraxis", source="licks", clock="acq"
    ) as licks:
        there = licks["time_acq"]
        assert there.dtype == "m8[ns]"
        true = np.array([to_acq(int(t)) for t in licks["monotonic_ns"].values])
        away = np.abs(there.values.astype("i8") - true)
        assert away.max() <= there.attrs["bound_ns"] < 10_000
    with xr.open_dataset(
        place[1], engine="ataraxis", source="camera", clock="acq"
    ) as camera:
        assert (camera["time_acq"].values == camera["time"].values).all()


def test_an_archive_converts_times(place: Place) -> None:
    recording(place)
    with LogArchive(place[1]) as archive:
        stamps = archive.read("camera").time
        here, bounds = archive.to_clock("camera", stamps, "gpu")
        assert (np.abs(here - archive.read("licks").time) <= bounds).all()
        there, bounds = archive.to_clock("licks", archive.read("licks").time, "acq")
        assert (np.abs(there - stamps) <= bounds).all()
        same, bounds = archive.to_clock("camera", stamps, "acq")
        assert (same == stamps).all()
        assert not bounds.any()
        with pytest.raises(ValueError, match="no times of host 'behaviour'"):
            archive.to_clock("licks", stamps, "behaviour")


def test_samples_of_blocks_on_another_clock(place: Place) -> None:
    context, directory = place
    attrs = {"sample_rate_hz": 1000}
    probe = mirrored(
        context, "probe", shape=(100, 2), dtype="i2", dims=("time", "channel"),
        attrs=attrs,
    )  # fmt: skip
    publisher = ClockPublisher(context, "acq", "gpu")
    with record(place, "probe") as recorder:
        for second in range(100, 110):
            publish(publisher, second * S)
            for k in range(10):
                last = second * S + (k + 1) * S // 10
                probe.send(np.zeros((100, 2), "i2"), time_ns=to_acq(last))
        wait_until(has_rows(recorder, 10), 20)
    with xr.open_dataset(directory, engine="ataraxis", clock="gpu") as dataset:
        here = dataset["time_gpu"]
        assert here.dims == ("time",)
        steps = np.diff(here.values.astype("i8"))
        assert abs(int(steps.mean()) - 1_000_000) < 50
        assert (steps > 900_000).all()
    probe.unlink()
    publisher.close()


@pytest.mark.parametrize("kind", ["nwb", "xdf"])
def test_a_file_of_one_time_has_all_sources_on_the_clock_here(
    place: Place, kind: str
) -> None:
    pytest.importorskip({"nwb": "pynwb", "xdf": "pyxdf"}[kind])
    recording(place)
    output = place[1].parent / f"out.{kind}"
    export_log(place[1], output)
    times = times_in(output, kind)
    assert len(times["camera"]) == len(times["licks"]) == 200
    assert np.abs(times["camera"] - times["licks"]).max() < 10e-6
    for path in place[1].glob("clock.acq.*"):
        path.unlink()
    output.unlink()
    with pytest.raises(ValueError, match=r"one time for all sources.*to zarr or npz"):
        export_log(place[1], output)
    export_log(place[1], output, sources=["camera"])
    assert len(times_in(output, kind)["camera"]) == 200


def times_in(path: Path, kind: str) -> dict[str, Any]:
    """Read the times of a file by the libraries of the formats."""
    if kind == "nwb":
        import pynwb

        with pynwb.NWBHDF5IO(str(path), "r") as io:
            found = io.read().acquisition
            return {name: one.timestamps[:] for name, one in found.items()}
    import pyxdf

    streams, _ = pyxdf.load_xdf(str(path))
    return {one["info"]["name"][0]: one["time_stamps"] for one in streams}


def test_a_killed_recorder_resumes_the_table(place: Place) -> None:
    context, directory = place
    camera, publisher = mirrored(context), ClockPublisher(context, "acq")
    program = (
        "import sys, time\nfrom ataraxis import Recorder\n"
        "Recorder('camera', sys.argv[2], context=sys.argv[1])\ntime.sleep(60)"
    )
    for turn in range(3):
        publish(publisher, (100 + turn) * S)
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(context), str(directory)]
        )
        wait_until(lambda: len(read_tables(directory).get("acq", ())) == turn + 1, 20)  # noqa: B023
        process.kill()
        process.wait()
    publish(publisher, 110 * S)
    with record(place) as recorder:
        wait_until(has_rows(recorder, 1), 20)
    camera.unlink()
    publisher.close()
    (source,) = [s for s in verify(directory).sources if s.name == "clock.acq"]
    assert (source.received, source.missing, source.repeated) == (4, 0, 0)


# ---- the table itself


def rows_of(local: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rows = np.zeros((len(local), 4), "i8")
    rows[:, 0] = local
    rows[:, 1] = [round(offset_at(float(t))) for t in local]
    rows[:, 2] = 500
    rows[:, 3] = round(DRIFT * 1e9)
    return rows


@pytest.mark.parametrize("drift", [0.0, 20e-6, -20e-6, 100e-6, -100e-6])
def test_the_bound_holds_between_and_beyond_the_rows(drift: float) -> None:
    rng = np.random.default_rng(int(drift * 1e7) & 0xFF)
    local = np.sort(rng.integers(100 * S, 400 * S, 200))
    rows = np.zeros((200, 4), "i8")
    rows[:, 0] = local
    errors = rng.integers(-500, 501, 200)
    rows[:, 1] = np.rint(AHEAD + drift * local).astype("i8") + errors
    rows[:, 2] = 501
    rows[:, 3] = round(drift * 1e9)
    table = ClockTable.of_rows("acq", rng.permutation(rows))
    true = rng.integers(50 * S, 450 * S, 5000)
    there = true + np.rint(AHEAD + drift * true).astype("i8")
    for found, wanted in (
        (table.to_local(there), true),
        (table.to_remote(true), there),
    ):
        away, bound = np.abs(found[0] - wanted), found[1]
        assert (away <= bound).all()
        assert np.median(bound) < 10_000


def test_a_jump_is_not_interpolated() -> None:
    """The other host was suspended for 100 s: its clock stood still."""
    local = np.arange(100, 200) * S
    rows = rows_of(local)
    rows[50:, 1] -= 100 * S
    table = ClockTable.of_rows("acq", rows)
    for k in (0, 49, 50, 99):
        here, bound = table.to_remote(local[k : k + 1])
        assert here[0] == local[k] + rows[k, 1]
        assert bound[0] < 2000
    _, bound = table.to_remote(local[49:50] + S // 2)
    assert bound[0] >= 100 * S


def test_each_boot_has_its_own_times(place: Place) -> None:
    """The other host was started again, and its clock begins at 0 again."""
    context, directory = place
    publisher = ClockPublisher(context, "acq", "gpu")
    camera = mirrored(context)
    recorder = Recorder("camera", directory, context=context, follow=True)
    for second in range(100, 110):
        publish(publisher, second * S)
        camera.send(np.int64(second), time_ns=to_acq(second * S))
    wait_until(has_rows(recorder, 10), 20)
    camera.close()
    camera = Producer(
        "camera", shape=(), dtype="i8", context=context, attrs={"clock": "acq/boot-2"}
    )
    for second in range(200, 210):
        known = Offset(-199 * S, 500, second * S, "acq", 0.0, 3e-6, S)
        publisher.publish(known, second * S, "boot-2")
        camera.send(np.int64(second), time_ns=second * S - 199 * S)
    wait_until(has_rows(recorder, 20), 20)
    recorder.stop()
    camera.unlink()
    publisher.close()
    table = read_tables(directory)["acq"]
    assert set(table.boots) == {"boot-1", "boot-2"}
    with xr.open_dataset(
        directory, engine="ataraxis", source="camera", clock="gpu"
    ) as dataset:
        shift = int(table.shift_ns[0])
        here = dataset["time_gpu"].values.astype("i8") - shift
        away = np.abs(here - dataset["camera"].values * S)
        assert (away <= dataset["time_gpu"].attrs["bound_ns"]).all()
        assert dataset["time_gpu"].attrs["bound_ns"] < 10**6
    with pytest.raises(ValueError, match="not of 'boot-3'"):
        table.of_boot("boot-3")
