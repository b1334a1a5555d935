"""Labels: JSON and back exactly, untrusted JSON refused, labels found."""

import json
import pickle

import numpy as np
import pytest
import xarray as xr

from ataraxis.errors import LayoutError
from ataraxis.labels import (
    LABELS_LIMIT,
    Coordinate,
    Labels,
    dtype_from_json,
    dtype_to_json,
)

DTYPES = [
    "?", "i1", "<i2", ">i4", "<u8", ">u2", "<f2", ">f4", "<f8", "<c8", ">c16", "g",
    "S3", "U5", ">U2", "V7", "M8[ns]", "<M8[25s]", ">m8[D]", "M8", "m8[ps]", "S0",
    [("a", "<f4"), ("b", ">i8")],
    np.dtype([("a", "u1"), ("b", "f8")], align=True),
    [("xyz", "f4", (3,)), ("m", [("q", "M8[us]"), ("w", "U3", (2, 2))])],
    {"names": ["a", "b"], "formats": ["u1", "<u2"], "offsets": [5, 2], "itemsize": 16},
    {"names": ["a", "b"], "formats": ["u4", "u1"], "offsets": [0, 1], "itemsize": 4},
    [],
    [("ü µV", "f8")],
]  # fmt: skip


@pytest.mark.parametrize("spec", DTYPES, ids=str)
def test_dtype_comes_back_exactly(spec):
    dtype = np.dtype(spec)
    back = dtype_from_json(json.loads(json.dumps(dtype_to_json(dtype))))
    assert back == dtype
    assert back.str == dtype.str
    assert back.itemsize == dtype.itemsize
    assert back.isalignedstruct == dtype.isalignedstruct
    if dtype.names is not None:
        assert back.names == dtype.names
        assert dict(back.fields or {}) == dict(dtype.fields or {})


@pytest.mark.parametrize(
    "bad",
    [
        "|O", "O", "<f8,<f8", "f8", "<f3", "<i16", "float64", "=f8", "<M8[fortnight]",
        "<M8[1ns]", "S99999999999", "<U2147483647", "<f8\n", "", 7, None, [], {},
        {"base": "<f8", "shape": []},
        {"base": "<f8", "shape": [-1]},
        {"base": "<f8", "shape": [True]},
        {"base": "<f8", "shape": [2**40]},
        {"base": "<f8", "shape": [0, 2**40]},
        {"base": "<f8", "shape": [1] * 9},
        {"base": "|O", "shape": [1]},
        {"fields": [["a", "|O", 0]], "itemsize": 8},
        {"fields": [["a", "<f8", 0]], "itemsize": 7},
        {"fields": [["a", "<f8", -8]], "itemsize": 8},
        {"fields": [["a", "<f8", 0], ["a", "<f8", 8]], "itemsize": 16},
        {"fields": [["", "<f8", 0]], "itemsize": 8},
        {"fields": [["a", "<f8", 0, "title"]], "itemsize": 8},
        {"fields": [["a", "<f8", 1]], "itemsize": 9, "aligned": True},
        {"fields": [["a", "<f8", 0]], "itemsize": 8, "aligned": False},
        {"fields": [["a", "<f8", 0]], "itemsize": 2**31},
        {"fields": [[f"f{i}", "|u1", 0] for i in range(4097)], "itemsize": 1},
        {"fields": [], "itemsize": 0, "extra": 1},
    ],
    ids=lambda bad: repr(bad)[:50],
)  # fmt: skip
def test_dtype_that_we_never_write_is_refused(bad):
    with pytest.raises(LayoutError):
        dtype_from_json(bad)


def test_field_past_the_item_is_refused_with_its_place():
    with pytest.raises(LayoutError, match="'a' ends at byte 8 of an item of 7 bytes"):
        dtype_from_json({"fields": [["a", "<f8", 0]], "itemsize": 7})


def test_dtype_of_nine_levels_is_refused_both_ways():
    dtype = np.dtype("f8")
    for _ in range(9):
        dtype = np.dtype([("a", dtype)])
    with pytest.raises(ValueError, match="flatten"):
        dtype_to_json(dtype)
    tree = "<f8"
    for _ in range(9):
        tree = {"fields": [["a", tree, 0]], "itemsize": 8}
    with pytest.raises(LayoutError, match="deeper"):
        dtype_from_json(tree)


def test_dtype_of_python_objects_is_refused_with_what_to_do():
    for dtype in (object, [("a", "f8"), ("b", object)], np.dtypes.StringDType()):
        with pytest.raises(TypeError, match="convert it"):
            Labels(dtype, (1,))
    with pytest.raises(TypeError, match="title"):
        Labels(np.dtype([(("title", "a"), "f8")]), (1,))
    with pytest.raises(ValueError, match="append that to shape"):
        Labels(("f4", (3,)), (1,))
    with pytest.raises(ValueError, match="4096"):
        Labels([(f"f{i}", "u1") for i in range(4097)], (1,))


def full():
    return Labels(
        "<f8",
        (2, 3),
        ("mouse", "axis"),
        {
            "mouse": np.array([0.1, np.nan], "f4"),
            "axis": list("xyz"),
            "time": ("mouse", np.array([1, 2**53 + 1], "M8[ns]"), {"units": "s"}),
            "gap": ("mouse", np.array([5, "NaT"], ">m8[us]")),
            "valid": (("mouse", "axis"), np.eye(2, 3, dtype=bool)),
            "phase": ("axis", [1j, np.inf, -0.0]),
            "big": ("mouse", np.array([0, 2**64 - 1], "u8")),
            "run": 7,
        },
        {
            "units": "µV", "rate_hz": 0.1, "n": 2**70, "off": False, "none": None,
            "nan": np.nan, "inf": -np.inf, "$f": "nan", "tree": [1, [2.5, {"a": []}]],
            "numpy": np.int16(3),
        },
        name="pose",
    )  # fmt: skip


def test_labels_come_back_exactly():
    labels = full()
    back = Labels.from_json(labels.to_json())
    assert back == labels
    assert back.to_json() == labels.to_json()
    assert hash(back) == hash(labels)
    assert back.coords.keys() == labels.coords.keys()
    for name, coord in labels.coords.items():
        assert back.coords[name].dims == coord.dims
        assert back.coords[name].values.dtype == coord.values.dtype
        assert back.coords[name].values.shape == coord.values.shape
        assert back.coords[name].values.tobytes() == coord.values.tobytes()
        assert back.coords[name].attrs == coord.attrs
    assert back.attrs["n"] == 2**70
    assert back.attrs["nan"] != back.attrs["nan"]
    assert back.attrs["inf"] == -np.inf
    assert back.attrs["$f"] == "nan"
    assert back.attrs["tree"] == [1, [2.5, {"a": []}]]
    assert type(back.attrs["numpy"]) is int
    assert back.name == "pose"


def test_json_is_canonical():
    labels = Labels("u1", (2,), ("x",), {"x": ["é", "b"]}, {"b": 1, "a": [1.0]})
    expected = (
        '{"attrs":{"a":[1.0],"b":1},"coords":{"x":{"dims":["x"],"dtype":"<U1",'
        '"values":["é","b"]}},"dims":["x"],"dtype":"|u1","shape":[2]}'
    )
    assert labels.to_json() == expected.encode()
    again = Labels("u1", (2,), ("x",), {"x": ["é", "b"]}, {"a": [1.0], "b": 1})
    assert again == labels
    assert Labels("u1", (2,)) != labels
    assert labels != "labels"


def test_labels_survive_pickle_and_say_their_size():
    assert pickle.loads(pickle.dumps(full())) == full()
    assert full().nbytes == 48


def test_labels_do_not_follow_what_they_were_made_of():
    values, attrs = np.arange(3.0), {"list": [1]}
    labels = Labels("f8", (3,), ("x",), {"x": values}, attrs)
    before = labels.to_json()
    values[0] = 9
    attrs["list"].append(2)
    assert labels.to_json() == before
    with pytest.raises(ValueError, match="read-only"):
        labels.coords["x"].values[0] = 9


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("f8", (4, 3), ("a",)), ValueError, "one name for each"),
        (("f8", (4, 3), ("a", "a")), ValueError, "duplicate"),
        (("f8", (4,), (1,)), TypeError, "as a str"),
        (("f8", (4,), ("\ud800",)), ValueError, "UTF-8"),
        (("f8", (-1,)), ValueError, "negative"),
        (("f8", (1,) * 9), ValueError, "at most 8"),
        (("f8", (2**59,)), ValueError, "too large"),
        (("f8", (0, 2**62)), ValueError, "too large"),
        (("f8", (3,), "x", {"x": [1, 2]}), ValueError, "one value per position"),
        (("f8", (3,), "x", {"t": ("y", [1, 2, 3])}), ValueError, "not one of the dims"),
        (("f8", (3,), "x", {"t": [1, 2, 3]}), ValueError, "not one of the dims"),
        (("f8", (3,), "x", {"x": ((), 3)}), ValueError, "name of a dimension"),
        (("f8", (2,), "x", {"x": [1, "a"]}), TypeError, "mixes"),
        (("f8", (2,), "x", {"x": [{}, {}]}), TypeError, "MultiIndex"),
        (("f8", (2,), "x", {"x": np.ones(2, "g")}), TypeError, "astype"),
        (("f8", (2,), "x", {"x": ["a", "\ud800"]}), ValueError, "UTF-8"),
        (("f8", (2,), "x", {}, {"a": 1j}), TypeError, "convert"),
        (("f8", (2,), "x", {}, {"a": {1: 2}}), TypeError, "key of attrs"),
        (("f8", (2,), "x", {}, {"a": 1 << 5000}), ValueError, "as text"),
        (("f8", (2,), "x", {}, {"a": "\ud800"}), ValueError, "UTF-8"),
        (("f8", (), (), {"a": np.zeros(1, "U20000000")[0]}), None, ""),
        (("f8", (1,), "x", {"x": np.zeros(1, "U20000000")}), ValueError, "large"),
    ],
)
def test_mistakes_are_explained(arguments, kind, message):
    if kind is None:
        Labels(*arguments)
        return
    with pytest.raises(kind, match=message):
        Labels(*arguments)


def test_labels_too_long_for_json_are_refused_when_written():
    labels = Labels("f8", (300_000,), ("x",), {"x": np.arange(300_000)})
    with pytest.raises(ValueError, match="1048576"):
        labels.to_json()
    deep = []
    for _ in range(40):
        deep = [deep]
    with pytest.raises(ValueError, match="flatten"):
        Labels("f8", (), attrs={"a": deep})


OK = {"dtype": "<f8", "shape": [2], "dims": ["x"]}


def coord(**changes):
    return {
        **OK,
        "coords": {"x": {"dims": ["x"], "dtype": "<i8", "values": [1, 2], **changes}},
    }


@pytest.mark.parametrize(
    "bad",
    [
        b"", b"{", b"null", b"[]", b"{}", b"\xff", b"\xef\xbb\xbf{}", b"1" * 5000,
        b"[" * 500_000, b'{"a":' * 100_000, b"NaN",
        b'{"dims":[],"dims":[],"dtype":"<f8","shape":[]}',
        b'{"dims":[],"dtype":"<f8","shape":[],"attrs":{"a":1e999}}',
        b'{"dims":[],"dtype":"<f8","shape":[],"attrs":{"a":NaN}}',
        b'{"dims":["\\ud800"],"dtype":"<f8","shape":[1]}',
        b'{"dims":[],"dtype":"<f8","shape":[],"attrs":{"a":"\\ud800"}}',
        '{"dims":[],"dtype":"<f8","shape":[]}'.encode("utf-16"),
        {**OK, "more": 1},
        {"dtype": "<f8", "shape": [2]},
        {**OK, "shape": [-1]},
        {**OK, "shape": [2.0]},
        {**OK, "shape": [True]},
        {**OK, "shape": [2**60]},
        {**OK, "shape": [2] * 9, "dims": list("abcdefghi")},
        {**OK, "shape": 2},
        {**OK, "dims": ["x", "y"]},
        {**OK, "dims": [1]},
        {**OK, "shape": [2, 2], "dims": ["x", "x"]},
        {**OK, "dtype": "|O"},
        {**OK, "dtype": {"base": "<f8", "shape": [2]}},
        {**OK, "name": 1},
        {**OK, "attrs": []},
        {**OK, "attrs": {"$f": "nan"}},
        {**OK, "attrs": {"a": {"$f": "1.0"}}},
        {**OK, "attrs": {"a": {"$f": []}}},
        {**OK, "attrs": {"a": {"$g": 1, "b": 2}}},
        {**OK, "attrs": {"a": 1 << 4097}},
        {**OK, "coords": []},
        {**OK, "coords": {"x": 1}},
        coord(dims=["y"]), coord(dims=[]), coord(dims="x"), coord(dims=[["x"]]),
        coord(values=[1]), coord(values=[1, 2.0]), coord(values=[1, True]),
        coord(values=[1, 2**63]), coord(values=[1, None]), coord(values={}),
        coord(values=[1, [2]]), coord(extra=1), coord(attrs=1),
        coord(dtype="|O"), coord(dtype="|S1"), coord(dtype="<f16", values=[1.0, 2.0]),
        coord(dtype="<U1", values=["a", "bc"]), coord(dtype="<U1", values=["a", 1]),
        coord(dtype="<U1", values=["a", "\ud800"]),
        coord(dtype="<U400000000", values=["a", "b"]),
        coord(dtype="|b1"), coord(dtype="<f4", values=["a", 1.0]),
        coord(dtype="<c8", values=[[1.0, 2.0], [1.0]]),
        coord(dtype="<c8", values=[[1.0, 2.0], [1, 2.0]]),
        coord(dtype="<M8[ns]", values=[1, "2020"]),
        coord(dtype={"fields": [], "itemsize": 0}),
    ],
    ids=lambda bad: repr(bad)[:60],
)  # fmt: skip
def test_json_that_we_never_write_is_refused(bad):
    data = bad if isinstance(bad, bytes) else json.dumps(bad).encode()
    with pytest.raises(LayoutError):
        Labels.from_json(data)


def test_coordinate_that_would_fill_the_memory_is_refused_before_it_is_made():
    data = json.dumps(coord(dtype="<U400000000", values=["a", "b"])).encode()
    with pytest.raises(LayoutError, match="larger than labels keep"):
        Labels.from_json(data)


def test_json_longer_than_the_limit_is_not_looked_at():
    data = Labels("f8", ()).to_json()
    assert Labels.from_json(memoryview(data), limit=len(data)).shape == ()
    with pytest.raises(LayoutError, match="at most 10"):
        Labels.from_json(data, limit=10)
    with pytest.raises(LayoutError, match=str(LABELS_LIMIT)):
        Labels.from_json(b" " * (LABELS_LIMIT + 1))


def test_xarray_is_a_live_view_with_the_labels():
    array = np.zeros((2, 3))
    labels = full()
    data = labels.to_xarray(array)
    assert np.shares_memory(data.values, array)
    array[1, 2] = 5
    assert data.sel(axis="z")[1] == 5
    assert data.name == "pose"
    assert labels.to_xarray(array, "other").name == "other"
    array.flags.writeable = False
    assert not labels.to_xarray(array).values.flags.writeable
    native = labels.coords["gap"].values.astype("<m8[us]")  # xarray keeps no other
    coords = {**labels.coords, "gap": ("mouse", native)}
    expected = Labels("f8", (2, 3), labels.dims, coords, labels.attrs, "pose")
    assert Labels.from_xarray(data) == expected
    with pytest.raises(ValueError, match="make labels"):
        labels.to_xarray(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="make labels"):
        labels.to_xarray(np.zeros((2, 3), "f4"))


def test_live_coordinates_stay_read_only_views_in_xarray():
    labels = Labels("f8", (3,), ("x",), {"t": ("x", [1.0, 2.0, 3.0])})
    data = labels.to_xarray(np.zeros(3))
    assert np.shares_memory(data["t"].values, labels.coords["t"].values)


def test_data_array_comes_back_identical():
    data = xr.DataArray(
        np.arange(6.0).reshape(2, 3),
        dims=("t", "c"),
        coords={
            "t": np.array(["2024-05-01", "2024-05-02"], "M8[ns]"),
            "c": ["a", "bb", "ccc"],
            "gain": ("c", [1, 2, 3], {"units": "uV"}),
            "who": "mouse",
        },
        attrs={"units": "mV", "calibration": np.array([1.5, 2.5])},
        name="t2",
    )
    labels = Labels.from_json(Labels.from_xarray(data).to_json())
    data.attrs["calibration"] = [1.5, 2.5]
    xr.testing.assert_identical(labels.to_xarray(data.values), data)


def test_data_array_that_cannot_be_kept_is_explained():
    data = xr.DataArray(np.zeros((2, 2)), {"a": [1, 2], "b": [3, 4]}).stack(z=["a"])
    with pytest.raises(TypeError, match="reset_index"):
        Labels.from_xarray(data)
    with pytest.raises(TypeError, match="as a str"):
        Labels.from_xarray(xr.DataArray([1.0], dims=(1,)))


def one(values):
    return Labels("f8", (len(values),), ("d",), {"d": values})


@pytest.mark.parametrize(
    ("values", "label", "expected"),
    [
        (list("xyz"), "y", 1),
        (list("xyz"), ["z", "x"], [2, 0]),
        (list("xyz"), np.array(["z"]), [2]),
        (list("xyz"), [], []),
        (list("xyx"), "x", [0, 2]),
        (list("xyz"), slice("x", "y"), slice(0, 2)),
        (list("xyz"), slice("y", None), slice(1, 3)),
        (list("xyz"), slice(None, None, 2), slice(0, 3, 2)),
        (list("zxy"), slice("z", "x"), slice(0, 2)),
        (list("bdf"), slice("c", "e"), slice(1, 2)),
        ([0.0, 0.5, 1.0], slice(0.25, 1.0), slice(1, 3)),
        ([0.0, 0.5, 1.0], slice(2, 3), slice(3, 3)),
        ([1.0, 0.5, 0.0], slice(1.0, 0.5), slice(0, 2)),
        ([1.0, 0.5, 0.0], slice(0.75, 0.25), slice(1, 2)),
        ([1, 2, 3], slice(3, 2, -1), slice(2, 0, -1)),
        ([1, 2, 3], slice(3, 1, -1), slice(2, None, -1)),
        ([1, 2, 3], slice(1, 3, -1), slice(0, 0, -1)),
        ([1, 1, 2], 1, [0, 1]),
        ([1, 1, 2], slice(1, 1), slice(0, 2)),
        ([1, 2, 3], 2.0, 1),
        ([1, 2, 3], np.int8(3), 2),
        ([1, 2, 3], np.array(3), 2),
        (np.array([0.1, 0.2], "f4"), 0.1, 0),
        ([1.0, np.nan], np.nan, 1),
        ([1j, 2j], 2j, 1),
        ([True, False], False, 1),
        (
            np.array(["1970-01-01T00:00:01", "NaT"], "M8[s]"),
            np.datetime64("NaT", "s"),
            1,
        ),
        (np.array(["2024-05-01", "2024-05-02"], "M8[ns]"), "2024-05-02", 1),
        (np.array([1, 2]).astype("m8[s]"), np.timedelta64(2000, "ms"), 1),
    ],
)
def test_labels_are_found(values, label, expected):
    assert one(values).position("d", label) == expected


HOURS = np.arange("2024-05-01", "2024-05-04", dtype="M8[h]").astype("M8[ns]")


@pytest.mark.parametrize(
    "label",
    [
        slice("2024-05-01", "2024-05-02"),
        slice("2024-05-02", "2024-05-01"),
        slice("2024-05-02T03", "2024-05-02T05"),
        slice("2024-05", None),
        slice(None, np.datetime64("2024-05-02")),
    ],
    ids=str,
)
def test_slices_of_times_are_those_of_xarray(label):
    labels = one(HOURS)
    data = labels.to_xarray(np.arange(72.0))
    expected = data.sel(d=label).values
    np.testing.assert_array_equal(data.values[labels.position("d", label)], expected)


def test_text_means_the_whole_day_in_falling_times_too():
    labels = one(HOURS[::-1])
    found = labels.position("d", slice("2024-05-02", "2024-05-02"))
    assert found == slice(24, 48)


@pytest.mark.parametrize(
    "values", [[1.0, 2.0, 4.0, 8.0], [8, 4, 2, 1], list("bdfh"), list("hfdb")], ids=str
)
def test_slices_are_those_of_xarray(values):
    labels = one(values)
    data = labels.to_xarray(np.arange(4.0))
    ends = [None, *values, *("acegi" if isinstance(values[0], str) else (0, 3, 9))]
    for start in ends:
        for stop in ends:
            label = slice(start, stop)
            got = data.values[labels.position("d", label)]
            np.testing.assert_array_equal(got, data.sel(d=label).values)


@pytest.mark.parametrize(
    ("values", "label", "message"),
    [
        (["left", "right"], "lft", "did you mean 'left'"),
        (["left", "right"], 1, "its labels are 'left', 'right'"),
        ([1.0, 2.0, 30.0, 4.0], 3.0, "closest are 1.0, 2.0, 4.0"),
        ([1, 2, 3], "1", "its labels are 1, 2, 3"),
        ([1, 2, 3, 4, 5], "1", r"are 1, 2, 3, 4, 5\.\W$"),
        ([1, 2, 3, 4, 5, 6], "1", r"are 1, 2, 3, 4, 5, \.{4}\W$"),
        ([1, 2, 3], True, "no label True"),
        ([1, 2, 3], np.timedelta64(1, "s"), "no label"),
        ([True], 1, "no label 1"),
        ([1, 2, 3], [1, 7], "no label 7"),
        ([1, 1, 3], [1, 3], "must be unique"),
        ([3, 1, 2], slice(0, 2), "no label 0"),
        ([1, 3, 1], slice(1, 3), "cannot bound a slice"),
        ([1, 2], slice("a", "b"), "no label 'a'"),
        (np.array([1], "M8[s]"), "soon", "no label 'soon'"),
        (np.array([1], "M8[s]"), 1, "no label 1"),
        (np.array([], "i8"), 1, "has no labels"),
    ],
)
def test_labels_that_are_not_there_are_answered_with_close_ones(values, label, message):
    with pytest.raises(KeyError, match=message):
        one(values).position("d", label)


def test_dimension_without_coordinate_takes_positions():
    labels = Labels("f8", (3, 2), ("time", "channel"))
    assert labels.position("time", -1) == 2
    assert labels.position("time", [0, np.int64(2)]) == [0, 2]
    assert labels.position("time", slice(0, 2)) == slice(0, 2)
    with pytest.raises(KeyError, match="0 to 2"):
        labels.position("time", 3)
    with pytest.raises(KeyError, match="not one of them"):
        labels.position("time", "x")
    with pytest.raises(KeyError, match="did you mean 'channel'"):
        labels.position("chanel", 0)
    with pytest.raises(ValueError, match="step"):
        one([1]).position("d", slice(None, None, 0))


def test_coordinate_is_the_tuple_xarray_takes():
    dims, values, attrs = Labels("f8", (1,), "x", {"x": [4]}).coords["x"]
    assert (dims, values.tolist(), attrs) == (("x",), [4], {})
    again = Labels("f8", (1,), "x", {"x": Coordinate(dims, values, attrs)})
    assert again.coords["x"].values.tolist() == [4]
