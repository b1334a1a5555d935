"""Labelled views: xarray's words on shared memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from ids import plain

from ataraxis import SharedMemoryArray, attach

PLAIN = np.arange(12.0).reshape(4, 3)
DIMS = ("mouse", "axis")
COORDS = {
    "axis": [*"xyz"],
    "mouse": [10, 20, 30, 40],
    "weight": ("mouse", [20.5, 21.0, 19.0, 22.0], {"units": "g"}),
}
ATTRS = {"units": "mm", "rate_hz": 120, "nested": {"a": [1, None, True]}}


def labelled(name: str = "pose") -> SharedMemoryArray:
    return SharedMemoryArray.create_array(
        name, PLAIN, dims=DIMS, coords=COORDS, attrs=ATTRS
    )


def reference() -> xr.DataArray:
    return xr.DataArray(PLAIN, dims=DIMS, coords=COORDS, attrs=ATTRS)


def test_to_xarray_is_a_labelled_live_read_only_view() -> None:
    with labelled() as pose:
        view = pose.to_xarray()
        xr.testing.assert_identical(view, reference())
        assert np.shares_memory(view.values, np.asarray(pose))
        pose[0, 0] = 99
        assert view.sel(mouse=10, axis="x") == 99
        with pytest.raises(ValueError, match=r"read-only|view"):
            view[0, 0] = 1
        with pytest.raises(ValueError, match="read-only"):
            view.values[0, 0] = 1
        assert pose[0, 0] == 99


def test_a_labelled_view_outlives_the_array() -> None:
    pose = labelled()
    view = pose.to_xarray()
    pose.destroy()
    del pose
    xr.testing.assert_identical(view, reference())


def test_a_snapshot_is_labelled_and_frozen() -> None:
    with labelled() as pose:
        taken = pose.snapshot()
        assert not np.shares_memory(taken.values, np.asarray(pose))
        pose[...] = 0
        xr.testing.assert_identical(taken, reference())


def test_an_array_without_labels_has_xarrays_default_names() -> None:
    with SharedMemoryArray.create_array("pose", PLAIN) as pose:
        assert pose.to_xarray().dims == xr.DataArray(PLAIN).dims
        assert pose.labels.dims == ("dim_0", "dim_1")


@pytest.mark.parametrize(
    "given",
    [
        reference(),
        xr.DataArray(5.0),
        xr.DataArray(np.zeros((0, 2)), dims=("t", "c")),
        xr.DataArray(
            np.arange(3, dtype=">i2"),
            {"time": np.array(["2024-05-01", "2024-05-02", "NaT"], "M8[ns]")},
            ("time",),
            name="counts",
        ),
        xr.DataArray(
            np.zeros((2, 2), "c8"),
            {"a": [1, 2], "grid": (("a", "b"), [[1.5, 2], [3, 4]]), "run": "third"},
            ("a", "b"),
            attrs={"unit": "V"},
        ),
        xr.DataArray(np.array(["left", "right"]), {"ok": ("s", [True, False])}, ("s",)),
        reference().transpose("axis", "mouse"),
        reference()[::2, ::-1],
    ],
    ids=["pose", "0d", "empty", "times", "grid", "text", "transposed", "strided"],
)
def test_from_xarray_goes_round(given: xr.DataArray) -> None:
    with SharedMemoryArray.from_xarray("x", given) as array:
        taken = array.snapshot()
        taken.name = given.name
        xr.testing.assert_identical(taken, given)
        assert taken.dtype == given.dtype
        xr.testing.assert_equal(attach("x").to_xarray(), given)


def test_from_xarray_keeps_the_name_of_the_data_array() -> None:
    given = reference().rename("position")
    with SharedMemoryArray.from_xarray("x", given) as array:
        assert array.name == "x"
        xr.testing.assert_identical(array.snapshot(), given)
        assert array.to_xarray().name == "position"


def test_from_xarray_takes_the_options_of_create_array() -> None:
    with (
        SharedMemoryArray.from_xarray("x", reference()) as old,
        SharedMemoryArray.from_xarray("x", reference()[:2], exist_ok=True) as new,
    ):
        assert old.shape == (4, 3)
        assert new.shape == (2, 3)


@pytest.mark.parametrize(
    "selection",
    [
        {"axis": "y"},
        {"mouse": 30},
        {"mouse": 30, "axis": "z"},
        {"axis": "z", "mouse": 10},
        {"axis": ["z", "x"]},
        {"axis": ["z", "x"], "mouse": [40, 10]},
        {"mouse": slice(20, 30)},
        {"mouse": slice(15, 35), "axis": "x"},
        {"mouse": slice(None, 20), "axis": slice("y", None)},
        {"axis": []},
        {},
    ],
    ids=str,
)
def test_sel_selects_what_xarray_selects(selection: dict[str, Any]) -> None:
    with labelled() as pose:
        expected = reference().sel(selection).values
        found = pose.sel(**selection)
        np.testing.assert_array_equal(found, expected)
        assert np.shape(found) == expected.shape
        if isinstance(found, np.ndarray):
            assert not np.shares_memory(found, np.asarray(pose))


@pytest.mark.parametrize(
    ("selection", "hint"),
    [
        ({"axes": "x"}, "axis"),
        ({"axis": "w"}, "x"),
        ({"mouse": 11}, "10"),
        ({"mouse": "10"}, "mouse"),
        ({"axis": ["x", "q"]}, "q"),
        ({"axis": slice("x", "q"), "mouse": 77}, "77"),
    ],
)
def test_labels_that_do_not_exist_are_key_errors_with_a_hint(
    selection: dict[str, Any], hint: str
) -> None:
    with labelled() as pose, pytest.raises(KeyError, match=hint):
        pose.sel(**selection)


def test_sel_along_a_dimension_without_labels_takes_positions() -> None:
    with SharedMemoryArray.create_array("x", PLAIN, dims=DIMS) as array:
        plain = xr.DataArray(PLAIN, dims=DIMS)
        for label in (1, -1, [2, 0], slice(1, 3)):
            expected = plain.sel(mouse=label).values
            np.testing.assert_array_equal(array.sel(mouse=label), expected)
        with pytest.raises(KeyError):
            array.sel(mouse=4)


def test_labels_reach_every_handle() -> None:
    with labelled() as pose:
        other = attach("pose")
        assert other.labels == pose.labels
        assert other.labels.attrs == ATTRS
        assert other.sel(axis="y").tolist() == [1, 4, 7, 10]


@pytest.mark.parametrize(
    "wrong",
    [
        {"dims": ("a",)},
        {"dims": ("a", "a")},
        {"dims": ("a", 5)},
        {"dims": DIMS, "coords": {"axis": [*"xy"]}},
        {"dims": DIMS, "coords": {"axis": ("nowhere", [*"xyz"])}},
        {"dims": DIMS, "coords": {"axis": [object()] * 3}},
        {"attrs": {"function": print}},
    ],
    ids=plain,
)
def test_labels_that_do_not_fit_are_refused_before_anything_is_made(
    wrong: dict[str, Any], context: Path
) -> None:
    with pytest.raises((ValueError, TypeError)):
        SharedMemoryArray.create_array("x", PLAIN, **wrong)
    assert list(context.iterdir()) == []


def test_labels_cannot_be_changed_by_what_they_were_made_of() -> None:
    values, attrs = np.array([1.0, 2.0, 3.0, 4.0]), {"units": "mm"}
    with SharedMemoryArray.create_array(
        "x", PLAIN, dims=DIMS, coords={"mouse": values}, attrs=attrs
    ) as array:
        values[:] = 0
        attrs["units"] = "km"
        assert array.to_xarray().coords["mouse"].values.tolist() == [1, 2, 3, 4]
        assert array.labels.attrs == {"units": "mm"}
        view = array.to_xarray()
        view.attrs["units"] = "km"
        assert array.labels.attrs == {"units": "mm"}
