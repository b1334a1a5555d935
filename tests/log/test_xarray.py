"""The engine of xarray: logs as datasets, of which only indexed parts are read."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import xarray as xr

from ataraxis import Producer, Recorder
from ataraxis.clock import Anchor
from ataraxis.errors import CorruptFrame, NotConnectedError
from ataraxis.log import (
    JournalWriter,
    LogArchive,
    assemble_log_archives,
)
from ataraxis.log.journal import input as inputs
from ataraxis.log.journal import page
from ataraxis.log.journal.reader import JournalReader
from ataraxis.log.npy.directory import EntryDirectory
from ataraxis.log.xarray import backend, index

ONSET_US = 1_700_000_000_000_000
ROWS = np.arange(600.0).reshape(200, 3)


def opened(path: Path, **options: object) -> xr.Dataset:
    return xr.open_dataset(path, engine="ataraxis", **options)


def filled(path: Path, rows: np.ndarray = ROWS, **options: object) -> Path:
    with JournalWriter(path) as journal:
        journal.log_block(7, rows, time_ns=10**12, step_ns=1000, **options)
    return path


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat short recordings as long ones: their times stay on disk."""
    monkeypatch.setattr(backend, "AT_ONCE", 4)
    monkeypatch.setattr(index, "IN_MEMORY", 4)


def mapped(path: Path) -> list[str]:
    maps = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in maps if str(path) in line]


# ---- how xarray finds it


def test_xarray_finds_the_engine_by_its_entry_point(tmp_path: Path) -> None:
    assert "ataraxis" in xr.backends.list_engines()
    filled(tmp_path)
    with xr.open_dataset(tmp_path) as dataset:
        assert dataset.data.shape == (200, 3)
    with xr.open_dataset(tmp_path / "journal.000000.axj") as dataset:
        assert dataset.sizes["time"] == 200


def test_it_claims_logs_and_nothing_else(tmp_path: Path) -> None:
    engine = backend.AtaraxisBackend()
    entries, other, archive = (tmp_path / name for name in "abc")
    for path in (entries, other, archive):
        path.mkdir()
    for path in (entries, archive):
        with EntryDirectory(path) as directory:
            directory.write(1, 5, b"x")
    assemble_log_archives(archive)
    (other / "results.npy").touch()
    (other / "zarr.json").touch()
    np.savez(other / "any.npz", x=1)
    assert engine.guess_can_open(str(entries))
    assert engine.guess_can_open(archive)
    assert engine.guess_can_open(archive / "1_log.npz")
    for no in (
        other,
        other / "any.npz",
        tmp_path / "none",
        b"CDF",
        3,
        "http://a/b.axj",
    ):
        assert not engine.guess_can_open(no)
    with pytest.raises(FileNotFoundError, match="no log"):
        opened(other)


# ---- contents of a dataset


def recorded(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Record a camera and a probe; return the frames."""
    camera = Producer(
        "camera", shape=(2, 3), dtype="u1", dims=("y", "x"),
        coords={"x": [0.5, 1.5, 2.5]}, attrs={"rate_hz": 100.0},
    )  # fmt: skip
    probe = Producer("probe", shape=(), dtype="f8", attrs={"units": "mV"})
    images = np.arange(60, dtype="u1").reshape(10, 2, 3)
    with camera, probe, Recorder(["camera", "probe"], path):
        for k, image in enumerate(images):
            camera.send(image, device_time=1000 * k, device_sequence=k)
            probe.send(np.float64(k / 2))
    return images, np.arange(10) / 2


def test_a_stream_is_read_back_completely(tmp_path: Path) -> None:
    images, _ = recorded(tmp_path)
    block = LogArchive(tmp_path).read("camera")
    with opened(tmp_path, source="camera") as dataset:
        camera = dataset.camera
        assert camera.dims == ("time", "y", "x")
        assert camera.attrs == {"rate_hz": 100.0}
        np.testing.assert_array_equal(camera.values, images)
        np.testing.assert_array_equal(camera.x, [0.5, 1.5, 2.5])
        np.testing.assert_array_equal(dataset.monotonic_ns, block.time)
        np.testing.assert_array_equal(dataset.sequence, block.sequence)
        assert dataset.device_time.values.tolist() == list(range(0, 10_000, 1000))
        assert dataset.device_sequence.values.tolist() == list(range(10))
        assert dataset.time.dtype == "M8[ns]"
        steps = np.diff(dataset.time.values).astype("i8")
        np.testing.assert_array_equal(steps, np.diff(block.time))
        near = np.datetime64("now", "ns") - dataset.time.values[0]
        assert abs(near) < np.timedelta64(60, "s")
        assert dataset.attrs["stream"] == "camera"
        assert dataset.attrs["missing"] == 0


def test_a_tree_has_a_node_for_each_stream(tmp_path: Path) -> None:
    images, values = recorded(tmp_path)
    with xr.open_datatree(tmp_path, engine="ataraxis") as tree:
        assert set(tree.children) == {"camera", "probe"}
        np.testing.assert_array_equal(tree["camera/camera"].values, images)
        np.testing.assert_array_equal(tree["probe"].probe.values, values)
        assert tree["probe"].probe.attrs["units"] == "mV"
        kept = tree["probe/probe"].load()
    assert mapped(tmp_path) == []
    with xr.open_datatree(tmp_path, engine="ataraxis", sources=["probe"]) as tree:
        assert set(tree.children) == {"probe"}
    with xr.open_datatree(tmp_path, engine="ataraxis", group="/camera") as tree:
        assert set(tree.children) == {"camera"}
    with opened(tmp_path, group="/probe") as dataset:
        assert dataset.probe.equals(kept)
    assert set(xr.open_groups(tmp_path, engine="ataraxis")) == {
        "/",
        "/camera",
        "/probe",
    }


def test_one_of_several_sources_must_be_chosen(tmp_path: Path) -> None:
    recorded(tmp_path)
    with pytest.raises(
        ValueError, match=r"camera.*probe.*source='camera'.*open_datatree"
    ):
        opened(tmp_path)
    with pytest.raises(KeyError, match=r"no source 'brobe'.*probe"):
        opened(tmp_path, source="brobe")
    with opened(tmp_path, source=1) as dataset:
        assert dataset.attrs["stream"] == "probe"
    with opened(tmp_path, name="probe") as dataset:
        assert "probe" in dataset
    assert mapped(tmp_path) == []


def test_fields_of_records_are_variables(tmp_path: Path) -> None:
    kind = np.dtype(
        [("t", "i4"), ("xy", "f4", (2,)), ("in", [("a", "u1"), ("b", "?")])]
    )
    rows = np.zeros(50, kind)
    rows["t"], rows["in"]["a"] = np.arange(50), np.arange(50)
    rows["xy"] = np.arange(100).reshape(50, 2)
    filled(tmp_path, rows)
    with opened(tmp_path) as dataset:
        assert set(dataset) == {"t", "xy", "in.a", "in.b"}
        np.testing.assert_array_equal(dataset.xy[10:12, 1].values, [21, 23])
        assert dataset["in.a"].isel(time=9).item() == 9


def test_text_and_python_numbers_are_read(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        for k, word in enumerate(["go", "left", "stop"]):
            journal.log(1, word)
            journal.log(2, k)
            journal.log(3, xr.DataArray([k, -k], dims="s", attrs={"units": "V"}))
    tree = xr.open_datatree(tmp_path, engine="ataraxis")
    assert tree["source_1"].data[1:].values.tolist() == ["left", "stop"]
    assert tree["source_2"].data.values.tolist() == [0, 1, 2]
    assert tree["source_3"].data.dims == ("time", "s")
    assert tree["source_3"].data.values.tolist() == [[0, 0], [1, -1], [2, -2]]
    tree.close()


def test_rows_with_a_time_of_their_own_are_along_entry(tmp_path: Path) -> None:
    producer = Producer("daq", shape=(4, 2), dtype="i2", dims=("time", "channel"))
    with producer, Recorder("daq", tmp_path):
        producer.send(np.ones((4, 2), "i2"))
        producer.send(np.zeros((4, 2), "i2"))
    with opened(tmp_path) as dataset:
        assert dataset.daq.dims == ("time", "channel")
        assert dataset.entry_time.dims == ("entry",)
        assert dataset.daq.values.sum(1).tolist() == [2, 2, 2, 2, 0, 0, 0, 0]
    with opened(tmp_path, by_entry=True) as dataset:
        assert dataset.daq.dims == ("entry", "time", "channel")
        assert dataset.entry_time.dims == ("entry",)
        assert dataset.daq.sum("time").values.tolist() == [[4, 4], [0, 0]]


def test_dropped_variables_are_not_read(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path, drop_variables=["sequence", "time"]) as dataset:
        assert set(dataset.coords) == {"monotonic_ns"}
    with opened(tmp_path, drop_variables="data") as dataset:
        assert list(dataset) == []


def test_an_empty_recording_opens(tmp_path: Path) -> None:
    producer = Producer("still", shape=(3,), dtype="f4", dims=("axis",))
    with producer, Recorder("still", tmp_path):
        pass
    with opened(tmp_path) as dataset:
        assert dataset.still.shape == (0, 3)
        assert dataset.still.values.shape == (0, 3)
        assert dataset.time.values.shape == (0,)


# ---- lazy


def test_a_damaged_far_entry_is_not_touched(tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = tmp_path.glob("*.axj")
    data = bytearray(path.read_bytes())
    at = data.rfind(ROWS[-1].tobytes())
    data[at] ^= 1
    path.write_bytes(data)
    with opened(tmp_path) as dataset:
        np.testing.assert_array_equal(dataset.data[:199].values, ROWS[:199])
        with pytest.raises(CorruptFrame, match=r"entry 199 of source 7.*drop_isel"):
            dataset.data[150:].load()
        good = dataset.drop_isel(time=[199])
        np.testing.assert_array_equal(good.data.values, ROWS[:199])


def test_a_lost_header_has_no_time(tmp_path: Path) -> None:
    filled(tmp_path)
    (path,) = tmp_path.glob("*.axj")
    data = bytearray(path.read_bytes())
    data[data.find(ROWS[5].tobytes()) - 60] ^= 1
    path.write_bytes(data)
    with opened(tmp_path) as dataset:
        assert np.flatnonzero(np.isnat(dataset.time.values)).tolist() == [5]
        assert dataset.data[6:8].shape == (2, 3)
        with pytest.raises(CorruptFrame, match="entry 5 "):
            dataset.data[5].load()


def counted(what: str, owner: object) -> mock._patch:
    return mock.patch.object(
        owner, what, autospec=True, side_effect=getattr(owner, what)
    )


@pytest.mark.usefixtures("on_disk")
def test_a_slice_reads_its_own_entries_only(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as dataset, counted("gather", JournalReader) as gather:
        dataset.data.isel(time=slice(20, 50, 10)).load()
        dataset.data[:, 1].isel(time=[3, 150]).load()
        dataset.data.sel(time=dataset.time[77].values).load()
    asked = [call.args[1].numbers.tolist() for call in gather.call_args_list]
    assert asked == [[20, 30, 40], [3, 150], [77]]


def headers_read(path: Path) -> int:
    """Return how many headers are read to open."""
    with counted("list_entries", inputs) as calls, opened(path):
        return sum(int(call.args[1]["count"]) for call in calls.call_args_list)


def test_opening_reads_as_much_of_a_long_recording_as_of_a_short(
    tmp_path: Path,
) -> None:
    short, long = filled(tmp_path / "a", np.zeros((10_000, 2))), tmp_path / "b"
    filled(long, np.zeros((200_000, 2)))
    assert headers_read(long) <= headers_read(short) < 10


@pytest.mark.usefixtures("on_disk")
@pytest.mark.parametrize("kind", ["journal", "onset", "no onset", "no microseconds"])
def test_the_index_on_disk_is_that_of_pandas(tmp_path: Path, kind: str) -> None:
    if kind == "journal":
        filled(tmp_path)
    else:
        base = 2**63 if kind == "no microseconds" else 50
        with EntryDirectory(tmp_path) as entries:
            for k in range(200):
                entries.write(7, base + k, ROWS[k].tobytes())
            if kind == "onset":
                entries.write(7, 0, ONSET_US.to_bytes(8, "little"))
    with opened(tmp_path) as lazy, opened(tmp_path) as other:
        assert isinstance(lazy.xindexes["time"], index.TimeIndex)
        assert "TimeIndex" in repr(lazy.isel(time=slice(100)).xindexes)
        plain = other.load().assign_coords(time=other.time.values)
        assert type(plain.xindexes["time"]) is not index.TimeIndex
        t = plain.time.values
        half = t[1] - t[0]
        for part in (slice(None), slice(20, 180), slice(10, None, 5), slice(90, 100)):
            one, two = lazy.isel(time=part), plain.isel(time=part)
            for label in (
                slice(t[30], t[95]), slice(None, t[50]), slice(t[91], None), t[95],
                slice(t[30], t[95], 3), slice(t[95], t[20]), [t[95], t[90]],
            ):  # fmt: skip
                xr.testing.assert_identical(
                    one.sel(time=label).data.drop_attrs(),
                    two.sel(time=label).data.drop_attrs(),
                )
            for method in ("nearest", "pad", "backfill"):
                got = one.sel(time=t[95] + half // 3, method=method).data.values
                want = two.sel(time=t[95] + half // 3, method=method).data.values
                np.testing.assert_array_equal(got, want)
        with pytest.raises(KeyError):
            lazy.sel(time=t[-1] + half)
        np.testing.assert_array_equal(lazy.data.diff("time"), plain.data.diff("time"))
        assert (lazy.data - lazy.data[10:]).shape == plain.data[10:].shape
        assert lazy.isel(time=3).time.values == t[3]
        assert len(xr.concat([lazy.data, lazy.data], "time").time) == 400


@pytest.mark.usefixtures("on_disk")
def test_text_means_all_of_its_minute(tmp_path: Path) -> None:
    wall = np.datetime64("2026-11-21T15:00:58", "ns").astype(int)
    anchor = Anchor(int(wall), 10**12, "rig")
    with mock.patch.object(page.Anchor, "take", return_value=anchor):
        filled(tmp_path)
        with JournalWriter(tmp_path, "more") as journal:
            journal.log_block(1, np.arange(400), time_ns=10**12, step_ns=10**7)
    with opened(tmp_path, source=1) as dataset:
        assert dataset.sel(time="2026-11-21T15:00").sizes["time"] == 200
        assert dataset.sel(time=slice("2026-11-21T15:01:00", None)).sizes["time"] == 200
        assert dataset.sel(time="2026-11-21T15:00:59.500").data.values.tolist() == [150]


def test_every_session_has_its_own_anchor(tmp_path: Path) -> None:
    """A machine that was restarted counts from 0 again: its times still rise."""
    for boot, (wall, monotonic) in enumerate([(10**18, 5 * 10**15), (2 * 10**18, 7)]):
        anchor = Anchor(wall, monotonic, "rig", str(boot))
        with (
            mock.patch.object(page.Anchor, "take", return_value=anchor),
            JournalWriter(tmp_path, file_bytes=8192) as journal,
        ):
            journal.log_block(7, ROWS, time_ns=monotonic, step_ns=1000)
    assert len(list(tmp_path.glob("*.axj"))) > 4
    archive = LogArchive(tmp_path)
    with pytest.raises(ValueError, match=r"in 2 boots.*open_dataset"):
        archive.to_datetime64(archive.read(7).time)
    with opened(tmp_path) as dataset:
        wall = dataset.time.values.astype("i8")
        steps = 1000 * np.arange(200)
        np.testing.assert_array_equal(wall, [*(10**18 + steps), *(2 * 10**18 + steps)])
        series = slice(*np.array([2 * 10**18, 2 * 10**18 + 5000]).astype("M8[ns]"))
        np.testing.assert_array_equal(dataset.sel(time=series).data, ROWS[:6])


# ---- open, closed, pickled


def test_closing_closes_the_files(tmp_path: Path) -> None:
    filled(tmp_path)
    dataset = opened(tmp_path, cache=False)
    part = dataset.data[:3].values
    assert mapped(tmp_path)
    dataset.close()
    assert mapped(tmp_path) == []
    np.testing.assert_array_equal(part, ROWS[:3])
    with pytest.raises(NotConnectedError, match=r"closed.*load\(\)"):
        dataset.data[5].load()


def test_a_file_in_progress_is_read_as_far_as_it_is(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log_block(7, ROWS[:50])
        journal.flush()
        with opened(tmp_path) as dataset:
            journal.log_block(7, ROWS[50:])
            journal.flush()
            np.testing.assert_array_equal(dataset.data.values, ROWS[:50])
            again = pickle.loads(pickle.dumps(dataset))
            np.testing.assert_array_equal(again.data.values, ROWS[:50])
        with opened(tmp_path) as dataset:
            np.testing.assert_array_equal(dataset.data.values, ROWS)


@pytest.mark.usefixtures("on_disk")
def test_a_dataset_is_pickled_as_arguments_to_open_it(tmp_path: Path) -> None:
    filled(tmp_path)
    with opened(tmp_path) as dataset:
        data = pickle.dumps(dataset.isel(time=slice(10, 190)))
    assert len(data) < 20_000
    again = pickle.loads(data)
    np.testing.assert_array_equal(again.data[3].values, ROWS[13])
    assert (
        again.sel(time=again.time[7].values).data.values.tolist() == ROWS[17].tolist()
    )


def test_chunks_need_dask(tmp_path: Path) -> None:
    filled(tmp_path)
    if importlib.util.find_spec("dask") is None:
        with pytest.raises((ImportError, ValueError), match="dask"):
            opened(tmp_path, chunks={})
        return
    with opened(tmp_path, chunks={}) as dataset:
        total = dataset.data.sum("time").compute(scheduler="synchronous")
        np.testing.assert_array_equal(total, ROWS.sum(0))


# ---- errors


def test_entries_of_several_kinds_are_refused_with_advice(tmp_path: Path) -> None:
    with JournalWriter(tmp_path) as journal:
        journal.log_block(1, np.zeros((5, 3)))
        journal.log_block(1, np.zeros((5, 6), "f4"))  # as many bytes
        journal.log_block(1, np.zeros((5, 4)))
        journal.log(2, {"a": 1})
    with opened(tmp_path, source=1) as dataset:
        assert dataset.data[:5].values.shape == (5, 3)
        for wrong in (slice(3, 8), slice(12, 14), slice(6, 7)):
            with pytest.raises(ValueError, match=r"entries=slice\(0, .*LogArchive"):
                dataset.data[wrong].load()
    with opened(tmp_path, source=1, entries=slice(5, 10)) as dataset:
        assert dataset.data.values.dtype == "f4"
        assert dataset.sizes["time"] == 5
    with pytest.raises(ValueError, match=r"DICT.*LogArchive.*entries\(2\)"):
        opened(tmp_path, source=2)
    with pytest.raises(ValueError, match=r"DICT.*sources=\['source_1'\]"):
        xr.open_datatree(tmp_path, engine="ataraxis")
    assert mapped(tmp_path) == []


# ---- npy directories and archives


@pytest.mark.parametrize("is_archived", [False, True])
def test_entries_of_the_originals_open(tmp_path: Path, is_archived: bool) -> None:
    with EntryDirectory(tmp_path) as entries:
        for source in (7, 9):
            entries.write(source, 0, ONSET_US.to_bytes(8, "little"))
            for k in range(20):
                entries.write(source, 100 * k + 50, ROWS[k].tobytes())
    if is_archived:
        assemble_log_archives(tmp_path)
        with opened(tmp_path / "9_log.npz", dtype="f8") as dataset:
            np.testing.assert_array_equal(dataset.data, ROWS[:20])
    wall = (ONSET_US + 50 + 100 * np.arange(20)).astype("M8[us]")
    with opened(tmp_path, source=7) as dataset:
        assert (dataset.data.shape, dataset.data.dtype) == ((20, 24), "u1")
        np.testing.assert_array_equal(dataset.time, wall)
        assert dataset.device_time.values.tolist() == list(range(50, 2050, 100))
        assert dataset.device_time.attrs["units"] == "us"
    with opened(tmp_path, source=7, dtype=">f8", onset_us=0) as dataset:
        assert dataset.data.shape == (20, 3)
        assert dataset.time.values[0] == np.datetime64(50, "us")
    with pytest.raises(ValueError, match="24 bytes, which cannot be read as"):
        opened(tmp_path, source=7, dtype="c16,u1")
