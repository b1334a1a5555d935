"""Recordings: every format gives the samples that were written, or an error."""

from __future__ import annotations

import datetime
import queue
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
from datamux_rig import drained, gaze_json, write_collection
from places import DATA

import ataraxis.datamux as dm
from ataraxis import Consumer
from ataraxis.datamux import Field, Recording, Stream
from ataraxis.datamux.description import channel_names
from ataraxis.errors import RecordingError, SourceNotFound

if not DATA.is_dir():
    DATA = Path("/work/shared/data")
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the recordings of ../shared/data are not here"
)
ATTRS = {"subject": "A", "session": "1", "task": "1"}


def table(n: int = 12) -> dict[str, np.ndarray]:
    t = np.arange(n) / 100
    x = np.linspace(-1, 1, n).astype("f4")
    return {"t": t, "x": x, "y": (x * 3).astype("f4")}


# ---- columns against a description


def stream(dtype: str = "f64", rate: float | None = 10, unit: str = "") -> Stream:
    fields = {"v": Field(dtype=dtype)}
    return Stream("s", frequency=rate, fields=fields, index={"t": Field(unit=unit)})


def test_rows_are_sorted_by_time_and_equal_times_stay_in_order():
    columns = {"t": np.array([3.0, 1.0, 1.0, 2.0]), "v": np.arange(4.0)}
    recording = Recording.of(stream(unit="s"), columns)
    assert recording.t.tolist() == [1, 1, 2, 3]
    assert recording.read().values["v"].tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize(
    ("times", "rate", "unit", "seconds"),
    [
        ([0, 10, 20, 8020, 8030], 100, "", [0, 0.01, 0.02, 8.02, 8.03]),
        ([0, 0.01, 0.02, 8.02], 100, "", [0, 0.01, 0.02, 8.02]),
        ([0, 15, 30], None, "", [0, 15, 30]),
        ([0, 15, 30], None, "ms", [0, 0.015, 0.03]),
        ([0, 500_000], 2, "us", [0, 0.5]),
        ([5_000_000_000], 2, "ns", [5]),
        ([0, 1_000_000], 1000, "", [0, 0.001]),
    ],
    ids=["a gap in ms", "a gap in s", "events", "ms", "us", "one row", "ns by rate"],
)
def test_units_of_time_are_declared_or_found_by_the_median(times, rate, unit, seconds):
    columns = {"t": np.array(times), "v": np.zeros(len(times))}
    recording = Recording.of(stream("f64", rate, unit), columns)
    np.testing.assert_allclose(recording.t, seconds, rtol=1e-12)


def test_without_an_index_the_frequency_gives_the_times():
    recording = Recording.of(stream(rate=0.5), {"v": np.zeros(3)})
    assert recording.t.tolist() == [0, 2, 4]


def test_dates_are_times():
    t = np.array(["2026-01-01T00:00:00", "2026-01-01T00:00:01"], "M8[s]")
    recording = Recording.of(stream(), {"t": t, "v": np.zeros(2)})
    assert recording.duration_s == 1.0


def test_declared_dtypes_are_kept_exactly():
    wide = np.array([0, 2**63 - 1])
    recording = Recording.of(stream("i64"), {"v": wide})
    assert [r["value"]["v"] for r in recording.read().records()] == [0, 2**63 - 1]
    assert recording.read().values["v"].dtype == np.int64
    narrow = Recording.of(stream("i8"), {"v": np.array([1.0, -128.0])})
    assert narrow.read().values["v"].dtype == np.int8


@pytest.mark.parametrize(
    ("made", "columns", "message"),
    [
        (stream(), {"w": np.zeros(2)}, "has field 'v' and the file has ['w']"),
        (stream(rate=None), {"v": np.zeros(2)}, "nor a frequency, so no times"),
        (stream("i8"), {"v": np.array([1, 300])}, "row 1 is"),
        (stream("i16"), {"v": np.array([1.5])}, "row 0 is"),
        (stream("u8"), {"v": np.array([1.0, np.nan])}, "row 1 is"),
        (stream("f32"), {"v": np.array(["a"])}, "f32 is declared, found <U1"),
        (
            stream(),
            {"v": np.zeros(2), "t": np.array([0, np.nan])},
            "row 1 is not a time",
        ),
        (stream(), {"v": np.zeros(2), "t": np.zeros(3)}, "has 3 rows, fields 2"),
        (stream(), {"v": np.zeros((2, 3))}, "shape () are declared, found (3,)"),
        (stream(unit="min"), {"v": np.zeros(1), "t": np.zeros(1)}, "is in 'min'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_columns_that_do_not_fit_are_named(made, columns, message):
    with pytest.raises(RecordingError) as caught:
        Recording.of(made, columns, "the file")
    assert message in str(caught.value)
    assert "the file" in str(caught.value)


# ---- one table, every format


def write(path: Path, kind: str, columns: dict[str, np.ndarray]) -> None:
    names = [*columns]
    if kind == "csv":
        rows = zip(*(c.tolist() for c in columns.values()), strict=True)
        lines = [",".join(names), *(",".join(map(repr, row)) for row in rows)]
        path.with_suffix(".csv").write_text("\n".join(lines))
    elif kind == "npz":
        np.savez(path.with_suffix(".npz"), **columns)
    elif kind == "npy":
        made = np.rec.fromarrays([*columns.values()], names=names)
        np.save(path.with_suffix(".npy"), made.view(np.ndarray))
    elif kind == "npy matrix":
        whole = np.stack([c.astype("f8") for c in columns.values()], 1)
        np.save(path.with_suffix(".npy"), whole)
    elif kind == "parquet":
        arrow, parquet = (
            pytest.importorskip(m) for m in ("pyarrow", "pyarrow.parquet")
        )
        parquet.write_table(arrow.table(columns), path.with_suffix(".parquet"))
    elif kind.startswith("h5"):
        h5py = pytest.importorskip("h5py")
        with h5py.File(path.parent / "data.h5", "a") as file:
            if kind == "h5":
                made = np.rec.fromarrays([*columns.values()], names=names)
                file[path.name] = made.view(np.ndarray)
                file[path.name].attrs["room"] = "B12"
            else:
                for name, column in columns.items():
                    file[f"{path.name}/{name}"] = column


KINDS = ["csv", "npz", "npy", "npy matrix", "parquet", "h5", "h5 group"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_what_was_written(tmp_path, kind):
    pattern = f"{kind.split()[0]}://{{subject}}_{{session}}_{{task}}"
    folder = write_collection(tmp_path, pattern=pattern)
    write(folder / "A_1_1", kind, table())
    write(folder / "B_1_1", kind, table(3))
    (folder / "stray.txt").write_text("?")
    api = dm.API(tmp_path, tmp_path)
    listed = api.list_collection_streams("eyes")
    assert [s.attrs["subject"] for s in listed] == ["A", "B"]
    if kind == "h5":
        assert listed[0].attrs["room"] == "B12"
    recording = api.recording("eyes", "gaze", listed[0].attrs)
    for name, column in table().items():
        found = recording.t if name == "t" else recording.read().values[name]
        np.testing.assert_array_equal(found, column)
        assert name == "t" or found.dtype == np.float32
    with pytest.raises(SourceNotFound, match="no recording"):
        api.recording("eyes", "gaze", {**ATTRS, "subject": "C"})


@pytest.mark.parametrize("kind", ["csv", "npz", "npy", "parquet", "h5"])
@pytest.mark.parametrize("damage", ["cut", "other"])
def test_a_damaged_file_says_so_and_spoils_only_itself(tmp_path, kind, damage):
    pattern = f"{kind}://{{subject}}_{{session}}_{{task}}"
    folder = write_collection(tmp_path, pattern=pattern)
    write(folder / "A_1_1", kind, table())
    path = folder / ("data.h5" if kind == "h5" else f"A_1_1.{kind}")
    data = path.read_bytes()
    if damage == "cut" and kind == "csv":
        path.write_bytes(data[: len(data) // 2].rsplit(b",", 1)[0])
    else:
        path.write_bytes(data[: len(data) // 3] if damage == "cut" else b"\xff\xd8\x00")
    api, sink = dm.API(tmp_path, tmp_path), queue.Queue()
    with pytest.raises(RecordingError, match=path.name.replace(".", r"\.")):
        api.replay_collection_stream("eyes", "gaze", ATTRS, sink)
    if kind != "h5":
        write(folder / "B_1_1", kind, table(3))
        attrs = {**ATTRS, "subject": "B"}
        ack = api.replay_collection_stream(
            "eyes", "gaze", attrs, sink, rate_limit=False
        )
        assert len(drained(sink)[0]) == 3
        assert ack.wait(5).reason == "completed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file: expected"),
        ("t,x,x\n", "duplicate column names"),
        ("t,x,y\n0,1,2\n1,2\n", "A_1_1.csv:3: 2 cells, the header has 3"),
        ("t,x,y\n0,1,2\n1,two,3\n", "A_1_1.csv:3: column 'x': expected float32, foun"),
        ("t,x\n0,1\n", "has field 'y' and the file has ['t', 'x']"),
    ],
)
def test_a_wrong_cell_is_named_with_its_line(tmp_path, text, message):
    folder = write_collection(tmp_path)
    (folder / "A_1_1.csv").write_text(text)
    with pytest.raises(RecordingError) as caught:
        dm.API(tmp_path, tmp_path).recording("eyes", "gaze", ATTRS)
    assert message in str(caught.value)


def test_csv_of_text_booleans_integers_and_gaps(tmp_path):
    kinds = {"x": "f32", "n": "i64", "s": "str", "b": "bool"}
    fields = {k: {"name": k, "dtype": v} for k, v in kinds.items()}
    made = {**gaze_json()["streams"]["gaze"], "fields": fields}
    folder = write_collection(tmp_path, streams={"gaze": made})
    text = '\ufeffx,n,s,b,more\n,9007199254740993,"a,b",true,0\n1.5,2.0,µ,0,0\n'
    (folder / "A_1_1.csv").write_text(text, encoding="utf-8")
    recording = dm.API(tmp_path, tmp_path).recording("eyes", "gaze", ATTRS)
    first, second = (r["value"] for r in recording.read().records())
    assert np.isnan(first.pop("x"))
    assert first == {"n": 9007199254740993, "s": "a,b", "b": True}
    assert second == {"x": 1.5, "n": 2, "s": "µ", "b": False}
    assert recording.t.tolist() == [0.0, 0.01]


def test_npy_is_mapped_not_read(tmp_path):
    folder = write_collection(tmp_path, pattern="npy://{subject}_{session}_{task}")
    np.save(folder / "A_1_1.npy", np.zeros((50, 2), "f4"))
    recording = dm.API(tmp_path, tmp_path).recording("eyes", "gaze", ATTRS)
    assert isinstance(recording.read().array.base, np.memmap | np.ndarray)
    assert recording.t[-1] == 0.49


# ---- formats that describe themselves


@needs_data
def test_wfdb_signals_are_the_converters_or_physical(tmp_path):
    wfdb = pytest.importorskip("wfdb")
    folder = write_collection(
        tmp_path,
        pattern="wfdb://{subject}",
        streams={
            "raw": {"frequency": 360, "fields": {"V5": {"dtype": "i16"}}},
            "mv": {"frequency": 360, "fields": {"MLII": {"dtype": "f64"}}},
            "beats": {
                "fields": {"symbol": {"dtype": "str"}},
                "attrs": {"annotator": "atr"},
            },
        },
    )
    for file in (DATA / "mitdb-100").iterdir():
        (folder / file.name).symlink_to(file)
    api = dm.API(tmp_path, tmp_path)
    assert len(api.list_collection_streams("eyes")) == 3
    read = wfdb.rdrecord(str(folder / "100"), physical=False)
    raw = api.recording("eyes", "raw", {"subject": "100"})
    np.testing.assert_array_equal(raw.read().values["V5"], read.d_signal[:, 1])
    np.testing.assert_array_equal(raw.t, np.arange(650_000) / 360)
    mv = api.recording("eyes", "mv", {"subject": "100"})
    expected = (read.d_signal[:, 0] - 1024) / 200
    np.testing.assert_array_equal(mv.read().values["MLII"], expected)
    beats = api.recording("eyes", "beats", {"subject": "100"})
    assert len(beats) == 2274
    assert beats.read(1, 2).records()[0] == {
        "index": {"t": 77 / 360}, "value": {"symbol": "N"}
    }  # fmt: skip


def test_wfdb_that_is_damaged_or_not_there(tmp_path):
    pytest.importorskip("wfdb")
    (tmp_path / "1.hea").write_text("nonsense\n")
    with pytest.raises(RecordingError, match=r"1\.hea"):
        dm.open_recordings(tmp_path / "1.hea")
    with pytest.raises(FileNotFoundError):
        dm.open_recordings(tmp_path / "2.hea")
    with pytest.raises(ValueError, match="describe it by a collection"):
        dm.open_recordings(tmp_path / "2.csv")


@needs_data
@pytest.mark.parametrize("name", ["minimal", "clock_resets", "empty_streams"])
def test_xdf_is_what_pyxdf_gives(name):
    pyxdf = pytest.importorskip("pyxdf")
    path = DATA / "xdf" / f"{name}.xdf"
    found = dm.open_recordings(path)
    loaded, _ = pyxdf.load_xdf(str(path))
    raw, _ = pyxdf.load_xdf(
        str(path), synchronize_clocks=False, dejitter_timestamps=False
    )
    assert set(found) == {s["info"]["name"][0] for s in loaded}
    for one, before in zip(loaded, raw, strict=True):
        recording = found[one["info"]["name"][0]]
        block = recording.read()
        np.testing.assert_array_equal(block.t, one["time_stamps"])
        np.testing.assert_array_equal(block.index["raw"], before["time_stamps"])
        values = [list(row) for row in one["time_series"]]
        assert [[*r["value"].values()] for r in block.records()] == values
        if isinstance(one["time_series"], np.ndarray) and len(block):
            assert block.array.dtype == one["time_series"].dtype


def markers() -> Recording:
    made = Stream(
        "m", fields={"what": Field(dtype="str")}, index={"t": Field(unit="s")}
    )
    columns = {"t": np.array([0.1, 0.3]), "what": np.array(["go", "µ <&> stop"])}
    return Recording.of(made, columns)


def test_xdf_written_is_read_back_exactly(tmp_path):
    pyxdf = pytest.importorskip("pyxdf")
    rng = np.random.default_rng(1)
    found = {"marks": markers()}
    for dtype in ("f32", "f64", "i8", "i16", "i32", "i64"):
        kinds = {f"c{i}": Field(dtype=dtype, unit="uV") for i in range(3)}
        made = Stream(dtype, frequency=250, fields=kinds, index={"t": Field(unit="s")})
        t = np.sort(rng.uniform(0, 40, 9000))
        values = (rng.normal(size=(9000, 3)) * 100).astype(made.labels().dtype)
        columns = {name: values[:, i] for i, name in enumerate(kinds)}
        found[dtype] = Recording.of(made, {"t": t, **columns})
    dm.write_xdf(tmp_path / "a.xdf", found)
    back, _ = pyxdf.load_xdf(str(tmp_path / "a.xdf"), dejitter_timestamps=False)
    assert [s["info"]["name"][0] for s in back] == [*found]
    for one in back:
        recording = found[one["info"]["name"][0]]
        np.testing.assert_array_equal(one["time_stamps"], recording.t)
        rows = [[*r["value"].values()] for r in recording.read().records()]
        assert [list(row) for row in one["time_series"]] == rows
    labels = back[1]["info"]["desc"][0]["channels"][0]["channel"]
    assert [(c["label"], c["unit"]) for c in labels][2] == (["c2"], ["uV"])
    again = dm.open_recordings(tmp_path / "a.xdf")
    np.testing.assert_array_equal(again["f32"].read().array, found["f32"].read().array)
    with pytest.raises(FileExistsError):
        dm.write_xdf(tmp_path / "a.xdf", found)


def test_xdf_that_cannot_hold_it_is_not_begun(tmp_path):
    fields = {"a": Field(dtype="f32"), "b": Field(dtype="i32")}
    made = Stream("x", frequency=1, fields=fields)
    columns = {"a": np.zeros(2, "f4"), "b": np.zeros(2, "i4")}
    with pytest.raises(ValueError, match="one dtype per stream"):
        dm.write_xdf(tmp_path / "a.xdf", {"x": Recording.of(made, columns)})
    assert not (tmp_path / "a.xdf").exists()


@pytest.mark.parametrize("content", [b"", b"nothing"])
def test_a_file_that_is_not_xdf_raises(tmp_path, content):
    path = tmp_path / "a.xdf"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=r"a\.xdf: not XDF"):
        dm.open_recordings(path)


@pytest.mark.parametrize("content", [b"XDF:", b"XDF:\x01"])
def test_xdf_that_was_cut_before_its_first_stream_has_none(tmp_path, content):
    pytest.importorskip("pyxdf")
    path = tmp_path / "a.xdf"
    path.write_bytes(content)
    assert dm.open_recordings(path) == {}


def test_xdf_streams_of_one_name_are_distinct(tmp_path):
    pytest.importorskip("pyxdf")
    one, two = tmp_path / "a.xdf", tmp_path / "b.xdf"
    dm.write_xdf(one, {"m": markers(), "n": markers()})
    two.write_bytes(one.read_bytes().replace(b"<name>n<", b"<name>m<"))
    assert [*dm.open_recordings(two)] == ["m#1", "m#2"]


def test_nwb_written_is_read_back_exactly(tmp_path):
    pytest.importorskip("pynwb")
    kinds = {name: Field(dtype="i16", unit="V") for name in ("left", "right")}
    made = Stream("x", frequency=100, fields=kinds, index={"t": Field(unit="s")})
    t = np.sort(np.random.default_rng(2).uniform(0, 5, 500))
    values = np.arange(1000, dtype="i2").reshape(500, 2)
    recording = Recording.of(
        made, {"t": t, "left": values[:, 0], "right": values[:, 1]}
    )
    path = tmp_path / "a.nwb"
    dm.write_nwb(path, {"x": recording, "marks": markers()})
    back = dm.open_recordings(path)
    np.testing.assert_array_equal(back["x"].t, t)
    np.testing.assert_array_equal(back["x"].read().array, values)
    assert [*back["x"].stream.fields] == ["left", "right"]
    assert back["x"].stream.unit == "V"
    rows = back["marks"].read().records()
    assert [r["value"]["what"] for r in rows] == ["go", "µ <&> stop"]
    with pytest.raises(FileExistsError):
        dm.write_nwb(path, {"x": recording})
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(RecordingError, match=r"a\.nwb"):
        dm.open_recordings(path)


# ---- times that doubles do not hold


@pytest.mark.parametrize(
    ("unit", "each"), [("ns", 1), ("us", 1000), ("ms", 10**6), (None, None)]
)
def test_times_of_this_century_are_replayed_to_the_ns(unit, each):
    first = 1_700_000_000_123_456_789
    if unit is None:
        raw = (first + np.arange(300) * 101).view("M8[ns]")
        ns = raw.view("i8")
    else:
        raw = first // each + np.arange(300) * 3
        ns = raw * each
    stream = dm.Stream(
        "s",
        fields={"v": dm.Field()},
        index={"t": dm.Field(dtype="i64", unit=unit or "")},
        attrs={"id": "s"},
    )
    recording = dm.Recording.of(stream, {"v": np.arange(300.0), "t": raw})
    with (
        dm.producer_of(recording.stream, "again", buffer_count=512) as producer,
        Consumer("again", policy="lossless") as consumer,
    ):
        task = dm.API().replay(recording, producer, rate_limit=False)
        task.wait()
        got = [frame.device_time for frame in consumer]
    assert got == ns.tolist()


def test_a_time_that_is_not_finite_is_named():
    stream = dm.Stream(
        "s", fields={"v": dm.Field()}, index={"t": dm.Field(dtype="i64")}
    )
    times = np.array(["2026-01-01", "NaT", "2026-01-02"], "M8[us]")
    with pytest.raises(RecordingError, match="index 't': row 1 is not a time"):
        dm.Recording.of(stream, {"v": np.arange(3.0), "t": times})


@pytest.mark.parametrize("unit", ["D", "s", "us"])
def test_a_time_that_ns_cannot_hold_is_named(unit):
    """The year 2500 became 1915."""
    stream = dm.Stream(
        "s", fields={"v": dm.Field()}, index={"t": dm.Field(dtype="i64")}
    )
    times = np.array(["2026-01-01", "2500-01-01"], f"M8[{unit}]")
    with pytest.raises(RecordingError, match=r"row 1 is 2500-.* 1678 to 2262"):
        dm.Recording.of(stream, {"v": np.arange(2.0), "t": times})
    seconds = dm.Stream("s", fields={"v": dm.Field()}, index={"t": dm.Field(unit="s")})
    made = dm.Recording.of(seconds, {"v": np.arange(2.0), "t": np.array([0, 1.7e12])})
    with pytest.raises(RecordingError, match="declare the unit of index 't'"):
        _ = made.read().time_ns


FIRST_NS = 1_700_000_000_123_456_789


def to_the_ns() -> tuple[np.ndarray, Recording]:
    ns = FIRST_NS + np.arange(1000) * 101
    stream = dm.Stream(
        "s", fields={"v": Field()}, index={"t": Field(dtype="i64", unit="ns")},
        attrs={"id": "s"},
    )  # fmt: skip
    return ns, dm.Recording.of(stream, {"v": np.arange(1000.0), "t": ns})


@pytest.mark.parametrize("kind", ["xdf", "nwb"])
def test_seconds_since_1970_are_off_by_128_ns_at_most(tmp_path, kind):
    """docs/howto/export.md and collections.md state how many."""
    pytest.importorskip({"xdf": "pyxdf", "nwb": "pynwb"}[kind])
    ns, recording = to_the_ns()
    path = tmp_path / f"a.{kind}"
    {"xdf": dm.write_xdf, "nwb": dm.write_nwb}[kind](path, {"s": recording})
    back = np.rint(dm.open_recordings(path)["s"].t * 1e9).astype("i8")
    assert np.abs(back - ns).max() <= 128
    near = dm.Recording.of(
        recording.stream, {"v": np.arange(1000.0), "t": ns - FIRST_NS + 1}
    )
    path = tmp_path / f"b.{kind}"
    {"xdf": dm.write_xdf, "nwb": dm.write_nwb}[kind](path, {"s": near})
    back = np.rint(dm.open_recordings(path)["s"].t * 1e9).astype("i8")
    assert back.tolist() == (ns - FIRST_NS + 1).tolist()


# ---- what other readers would have read


def test_signals_of_several_rates_names_and_annotation_clocks_of_wfdb(tmp_path):
    wfdb = pytest.importorskip("wfdb")
    lines = ["m 4 100 3", *(f"m.dat 16{x} 100/mV 16 0 0 0 0{name}" for x, name in (
        ("x2", " ECG"), ("", " ABP"), ("", " ABP"), ("x2", ""),
    ))]  # fmt: skip
    (tmp_path / "m.hea").write_text("\n".join(lines) + "\n")
    frame = np.arange(18, dtype="<i2").reshape(3, 6)
    frame.tofile(tmp_path / "m.dat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of pandas in wfdb
        wfdb.wrann(
            "m", "qrs", np.array([500, 1500]), np.array(["N", "V"]), fs=1000,
            write_dir=str(tmp_path),
        )  # fmt: skip
    (tmp_path / "m.csv").write_text("t,x\n0,1\n")
    (tmp_path / "m.json").write_text("{}\n")
    (tmp_path / "m.odd").write_bytes(b"\0\0\0")
    found = dm.open_recordings(tmp_path / "m.hea")
    assert sorted(found) == ["qrs", "signals_100hz", "signals_200hz"]
    fast, slow = (found[f"signals_{rate}hz"] for rate in (200, 100))
    assert [*fast.stream.fields] == ["ECG", "ch3"]
    assert [*slow.stream.fields] == ["ABP", "ABP#2"]
    values = fast.read().values
    np.testing.assert_allclose(values["ECG"], frame[:, :2].ravel() / 100)
    np.testing.assert_allclose(values["ch3"], frame[:, 4:].ravel() / 100)
    np.testing.assert_allclose(slow.read().values["ABP#2"], frame[:, 3] / 100)
    assert fast.t.tolist() == (np.arange(6) / 200).tolist()
    assert found["qrs"].t.tolist() == [0.5, 1.5]


def test_a_wfdb_record_of_several_segments(tmp_path):
    pytest.importorskip("wfdb")
    (tmp_path / "s.hea").write_text("s/2 1 100 6\ns_1 3\ns_2 3\n")
    for k in (1, 2):
        (tmp_path / f"s_{k}.hea").write_text(
            f"s_{k} 1 100 3\ns_{k}.dat 16 100/mV 16 0 0 0 0 ECG\n"
        )
        (np.arange(3) + 10 * k).astype("<i2").tofile(tmp_path / f"s_{k}.dat")
    (signals,) = dm.open_recordings(tmp_path / "s.hea").values()
    found = signals.read().values["ECG"]
    np.testing.assert_allclose(found, [0.1, 0.11, 0.12, 0.2, 0.21, 0.22])


def test_each_channel_of_nwb_has_its_own_conversion(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    import datetime

    from pynwb.ecephys import ElectricalSeries

    file = pynwb.NWBFile(
        session_description="d",
        identifier="u",
        session_start_time=datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
    )
    group = file.create_electrode_group(
        name="g", description="d", location="l", device=file.create_device(name="d")
    )
    for _ in range(2):
        file.add_electrode(location="x", group=group)
    region = file.create_electrode_table_region(region=[0, 1], description="all")
    data = np.arange(6, dtype="i2").reshape(3, 2)
    file.add_acquisition(
        ElectricalSeries(
            name="raw", data=data, electrodes=region, rate=1000.0, conversion=2.0,
            channel_conversion=[1.0, 10.0], offset=0.5,
        )
    )  # fmt: skip
    with pynwb.NWBHDF5IO(str(tmp_path / "n.nwb"), "w") as io:
        io.write(file)
    found = dm.open_recordings(tmp_path / "n.nwb")["raw"].read().array
    assert found.tolist() == (data * [2.0, 20.0] + 0.5).tolist()


def test_channels_of_xdf_keep_their_units(tmp_path):
    pytest.importorskip("pyxdf")
    fields = {"a": Field(dtype="f32", unit="uV"), "b": Field(dtype="f32")}
    stream = Stream("x", frequency=10, fields=fields)
    recording = Recording.of(stream, {"a": np.arange(3.0), "b": np.arange(3.0)})
    dm.write_xdf(tmp_path / "a.xdf", {"x": recording})
    found = dm.open_recordings(tmp_path / "a.xdf")["x"].stream.fields
    assert [field.unit for field in found.values()] == ["uV", ""]


@pytest.mark.parametrize("row", ["1,12,30,7.0", "1,12", "1,12,7.0,"])
def test_a_row_of_csv_with_too_many_or_few_cells_is_an_error(tmp_path, row):
    folder = write_collection(
        tmp_path, pattern="csv://{subject}",
        streams={"s": {"fields": {"x": {"dtype": "f64"}}, "index": {"t": {}}}},
    )  # fmt: skip
    (folder / "a.csv").write_text(f"t,note,x\n0,ok,5.0\n{row}\n2,ok,6.0\n")
    with pytest.raises(RecordingError, match=r"a\.csv:3: \d cells, the header has 3"):
        dm.API(tmp_path, tmp_path).recording("eyes", "s", {"subject": "a"})


@pytest.mark.parametrize("name", ["sample_rate_hz", "rate_hz"])
def test_columns_of_npz_may_have_a_rate_under_either_name(tmp_path, name):
    np.savez(tmp_path / "x.npz", x=np.arange(4.0), **{name: 50.0})
    found = dm.open_recordings(tmp_path / "x.npz")["x"]
    assert found.stream.rate_hz == 50
    np.testing.assert_allclose(found.t, np.arange(4) / 50)
    assert [*found.stream.fields] == ["x"]


def test_columns_of_npz_never_take_the_name_of_another(tmp_path):
    two = np.array([[1, 2], [3, 4]])
    np.savez(tmp_path / "x.npz", t=np.arange(2.0), x=two, x0=np.array([100, 200]))
    values = dm.open_recordings(tmp_path / "x.npz")["x"].read().values
    assert {name: column.tolist() for name, column in values.items()} == {
        "x[0]": [1, 3], "x[1]": [2, 4], "x0": [100, 200],
    }  # fmt: skip


def xdf_of(path: Path, rate: float, rows: list[tuple[float, int]]) -> Path:
    """Write one int16 channel chunk by chunk, as a recorder of LSL does."""

    def chunk(tag: int, content: bytes) -> bytes:
        content = struct.pack("<H", tag) + content
        return b"\x04" + struct.pack("<I", len(content)) + content

    info = (
        b'<?xml version="1.0"?><info><name>s</name><type>EEG</type><channel_count>1'
        b"</channel_count><nominal_srate>%g</nominal_srate><channel_format>int16"
        b"</channel_format><desc/></info>" % rate
    )
    samples = b"".join(b"\x08" + struct.pack("<dh", *row) for row in rows)
    count = b"\x04" + struct.pack("<I", len(rows))
    path.write_bytes(
        b"XDF:"
        + chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')
        + chunk(2, struct.pack("<I", 1) + info)
        + chunk(3, struct.pack("<I", 1) + count + samples)
    )
    return path


@pytest.mark.parametrize("rate", [0.0, 8.0])
def test_samples_keep_their_order_after_clock_resets(tmp_path: Path, rate: float):
    """B8: what came after a reset was put before what came before it."""
    pyxdf = pytest.importorskip("pyxdf")
    starts = [500.0, 2.0, 300.0, 1.0]  # back, forward, back
    rows = [(s + k / 8, 10 * n + k) for n, s in enumerate(starts) for k in range(6)]
    path = xdf_of(tmp_path / "a.xdf", rate, rows)
    with pytest.warns(RuntimeWarning, match=r"reset at sample 6, 18, and no"):
        read = dm.open_recordings(path)["s"].read()
    (theirs,), _ = pyxdf.load_xdf(str(path))
    assert read.values["ch0"].tolist() == theirs["time_series"][:, 0].tolist()
    assert read.index["raw"].tolist() == [t for t, _ in rows]
    times = read.t
    assert (np.diff(times) >= 0).all()
    # The gap forward is as written; the two back are one interval, if that is known.
    assert times[12] - times[11] == pytest.approx(300 - 2 - 5 / 8)
    assert times[6] - times[5] == pytest.approx(1 / rate if rate else 0, abs=1e-6)


def test_a_short_step_back_is_not_a_clock_reset(tmp_path: Path):
    pytest.importorskip("pyxdf")
    rows = [(0.0, 1), (4.0, 2), (3.0, 3), (5.0, 4)]
    read = dm.open_recordings(xdf_of(tmp_path / "a.xdf", 0.0, rows))["s"].read()
    assert read.values["ch0"].tolist() == [1, 3, 2, 4]


def test_comments_of_nwb_are_not_names_of_channels(tmp_path: Path):
    pynwb = pytest.importorskip("pynwb")
    date = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    file = pynwb.NWBFile("d", "u", date)
    for name, comments in (("lick", "no comments"), ("nose", "a poke, seen by hand")):
        data = np.zeros((3, len(comments.split(", "))))
        file.add_acquisition(
            pynwb.TimeSeries(
                name=name, data=data, unit="V", rate=10.0, comments=comments
            )
        )
    with pynwb.NWBHDF5IO(str(tmp_path / "n.nwb"), "w") as io:
        io.write(file)
    found = dm.open_recordings(tmp_path / "n.nwb")
    assert [*found["lick"].stream.fields] == [*channel_names(1)]
    assert [*found["nose"].stream.fields] == [*channel_names(2)]


@pytest.mark.parametrize("name", ["A.NPZ", "A.Npz", "a.npz"])
def test_columns_of_npz_of_any_byte_order_and_suffixes_in_capitals(tmp_path, name):
    column = np.array([1, -2, 300], ">i2")
    np.savez(tmp_path / "x.npz", t=np.arange(3.0), x=column)
    (tmp_path / "x.npz").rename(tmp_path / name)
    (read,) = dm.open_recordings(tmp_path / name).values()
    assert read.read().values["x"].tolist() == [1, -2, 300]
    assert read.read().values["x"].dtype == np.dtype("i2")


@pytest.mark.parametrize("name", ["B.XDF", "b.XDF"])
def test_a_suffix_may_be_in_capitals(tmp_path: Path, name: str):
    pytest.importorskip("pyxdf")
    xdf_of(tmp_path / name, 8.0, [(1.0, 5), (1.125, 6)])
    assert dm.open_recordings(tmp_path / name)["s"].read().values["ch0"].tolist() == [
        5,
        6,
    ]
    with pytest.raises(FileNotFoundError, match=r"C\.xdf"):
        dm.open_recordings(tmp_path / "C.XDF")


def test_a_header_of_csv_may_end_with_columns_without_a_name(tmp_path: Path):
    folder = write_collection(
        tmp_path, pattern="csv://{subject}",
        streams={"s": {"fields": {"x": {"dtype": "f64"}}, "index": {"t": {}}}},
    )  # fmt: skip
    (folder / "a.csv").write_text("t,x,,\n0,5.0,,\n1,6.0,,\n")
    api = dm.API(tmp_path, tmp_path)
    found = api.recording("eyes", "s", {"subject": "a"}).read()
    assert found.values["x"].tolist() == [5.0, 6.0]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_field_that_a_table_lacks_is_told_with_all_its_columns(tmp_path, kind):
    folder = write_collection(
        tmp_path, pattern=f"{kind}://{{subject}}",
        streams={"s": {"fields": {"gaze-x": {"dtype": "f64"}}, "index": {"t": {}}}},
    )  # fmt: skip
    if kind == "csv":
        (folder / "a.csv").write_text("t,gaze_x,other\n0,1,2\n")
    else:
        pa = pytest.importorskip("pyarrow")
        columns = {"t": [0.0], "gaze_x": [1.0], "other": [2.0]}
        pytest.importorskip("pyarrow.parquet").write_table(
            pa.table(columns), folder / "a.parquet"
        )
    with pytest.raises(RecordingError) as caught:
        dm.API(tmp_path, tmp_path).recording("eyes", "s", {"subject": "a"})
    assert "['t', 'gaze_x', 'other']; did you mean 'gaze_x'?" in str(caught.value)


def test_images_of_nwb_are_one_field_of_their_shape(tmp_path: Path):
    pynwb = pytest.importorskip("pynwb")
    date = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    file = pynwb.NWBFile("d", "u", date)
    images = np.arange(3 * 4 * 5, dtype="u1").reshape(3, 4, 5)
    file.add_acquisition(
        pynwb.TimeSeries(name="camera", data=images, unit="n.a.", rate=10.0)
    )
    file.add_acquisition(
        pynwb.TimeSeries(
            name="scaled", data=images, unit="V", rate=10.0, conversion=0.5, offset=1.0
        )
    )
    with pynwb.NWBHDF5IO(str(tmp_path / "n.nwb"), "w") as io:
        io.write(file)
    found = dm.open_recordings(tmp_path / "n.nwb")
    camera = found["camera"]
    assert [f.shape for f in camera.stream.fields.values()] == [(4, 5)]
    assert camera.read().values["camera"].tolist() == images.tolist()
    scaled = found["scaled"].read().values["scaled"]
    assert scaled.tolist() == (images * 0.5 + 1).tolist()


def test_a_stream_that_cannot_be_read_is_left_out_and_raises_when_asked_for(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    date = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    good = {"name": "lick", "data": np.arange(4.0), "unit": "V", "rate": 10.0}
    bad = {"name": "nose", "data": np.arange(3.0), "unit": "V"}
    bad["timestamps"] = [0.0, np.nan, 2.0]
    for name, series in (("both", [bad, good]), ("bad", [bad])):
        file = pynwb.NWBFile("d", "u", date)
        for options in series:
            file.add_acquisition(pynwb.TimeSeries(**options))
        with pynwb.NWBHDF5IO(str(tmp_path / f"{name}.nwb"), "w") as io:
            io.write(file)
    with pytest.warns(RuntimeWarning, match=r"'nose' is left out: .*row 1 is not a"):
        found = dm.open_recordings(tmp_path / "both.nwb")
    assert [*found] == ["lick"]
    with pytest.raises(RecordingError, match="row 1 is not a time"):
        found["nose"]
    with pytest.raises(KeyError):
        found["neither"]
    with pytest.raises(RecordingError, match="row 1 is not a time"):
        dm.open_recordings(tmp_path / "bad.nwb")
