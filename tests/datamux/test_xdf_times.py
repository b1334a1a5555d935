"""Times of XDF files: pyxdf's to the microsecond, or fitted with a true bound."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from places import DATA
from xdf_rig import XdfStream, made, write

import ataraxis.datamux as dm
from ataraxis.errors import ConfigError, RecordingError

if not DATA.is_dir():
    DATA = Path("/work/shared/data")

pyxdf = pytest.importorskip("pyxdf", reason="the xdf extra is not installed")

GAPS = ((300, 100), (800, 20))
RIGS = {
    "plain": {}, "one reset": {"resets": (120.0,)}, "gap": {"gaps": ((50, 30),)},
    "two resets": {"resets": (60.0, 200.0)}, "drift": {"ppm": -80.0, "swing_ppm": 20.0},
    "outliers": {"outliers": 3}, "irregular": {"rate": 0.0},
    "irregular, reset": {"rate": 0.0, "resets": (150.0,)}, "short": {"seconds": 30.0},
    "all": {"seconds": 1500.0, "gaps": GAPS, "resets": (700.0,), "ppm": 50.0},
}  # fmt: skip
FILES = [(name, seed) for name in RIGS for seed in (0, 1)]


def rig(name: str, seed: int) -> list[XdfStream]:
    rng = np.random.default_rng([seed, len(name)])
    options = RIGS[name]
    return [made(rng, "a", **options), made(rng, "b", **{"rate": 250.0, **options})]


@pytest.mark.parametrize(("name", "seed"), FILES)
def test_times_are_those_of_pyxdf_unless_they_are_fitted(tmp_path, name, seed):
    streams = rig(name, seed)
    path = write(tmp_path / "a.xdf", streams)
    theirs, _ = pyxdf.load_xdf(str(path))
    undejittered, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    found = dm.open_recordings(path)
    fitted = dm.open_recordings(path, times="fitted")
    fits = dm.xdf_fits(path)
    for one, own, raw in zip(streams, theirs, undejittered, strict=True):
        corrected = np.sort(own["time_stamps"], kind="stable")
        assert np.abs(found[one.name].t - corrected).max() <= 1e-6
        recording = fitted[one.name]
        block = recording.read()
        away = np.abs(recording.t - one.true)
        bound = block.index["bound"]
        assert (away <= bound).all()
        assert np.median(bound) < 0.0005
        assert len(fits[one.name].segments) == 1 + one.resets
        assert block.index["raw"].tolist() == one.stamps.tolist()
        assert block.values["ch0"].tolist() == one.values.tolist()
        # Both bounds: theirs is how far they are from the truth.
        error = np.abs(raw["time_stamps"] - one.true)
        assert (np.abs(recording.t - raw["time_stamps"]) <= bound + error).all()


def off_line(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 3:
        return 0.0
    x = x - x[0]
    return float(np.abs(y - np.polyval(np.polyfit(x, y, 1), x)).max())


@pytest.mark.parametrize("name", ["minimal", "clock_resets", "empty_streams"])
def test_example_files_are_fitted_as_near_to_their_offsets_as_by_pyxdf(name):
    path = DATA / "xdf" / f"{name}.xdf"
    if not path.is_file():
        pytest.skip("the recordings of ../shared/data are not here")
    theirs, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of streams without offsets
        fitted = dm.open_recordings(path, times="fitted")
    assert fitted
    for own in theirs:
        recording = fitted.get(own["info"]["name"][0])
        if recording is None or not len(recording):
            continue
        # How far pyxdf's line is from the offsets that it is fitted to.
        at, offsets = (np.array(own[k]) for k in ("clock_times", "clock_values"))
        parts = np.split(np.arange(len(at)), np.flatnonzero(np.diff(at) < 0) + 1)
        scatter = max(off_line(at[part], offsets[part]) for part in parts)
        bound = recording.read().index["bound"]
        away = np.abs(recording.t - np.sort(own["time_stamps"]))
        assert (away <= bound + scatter + 1e-6).all()


def test_times_can_be_fitted_in_a_collection_too(tmp_path):
    stream = rig("plain", 0)[0]
    path = write(tmp_path / "a.xdf", [stream])
    (found,) = dm.open_recordings(path, times="fitted").values()
    assert found.stream.attrs["times"] == "fitted"
    with pytest.raises(ConfigError, match="'file' or 'fitted', got 'best'"):
        dm.open_recordings(path, times="best")
    (tmp_path / "a.npz").write_bytes(b"")
    with pytest.raises(ValueError, match="times='fitted' is for XDF"):
        dm.open_recordings(tmp_path / "a.npz", times="fitted")


def test_streams_whose_clock_cannot_be_fitted_are_named(tmp_path):
    good, bare = rig("plain", 0)
    bare.clock_times, bare.clock_values = np.empty(0), np.empty(0)
    path = write(tmp_path / "a.xdf", [good, bare])
    with pytest.warns(RuntimeWarning, match="'b': without clock offsets"):
        found = dm.open_recordings(path, times="fitted")
    assert set(found) == set(dm.xdf_fits(path)) == {"a"}
    with pytest.raises(RecordingError, match="times='file'"):
        found["b"]
    # A reset that no offset shows.
    lost = rig("one reset", 0)[0]
    kept = lost.clock_values == lost.clock_values
    kept[np.flatnonzero(np.abs(np.diff(lost.clock_times)) > 6)[0] + 1 :] = False
    lost.clock_times, lost.clock_values = (
        lost.clock_times[kept],
        lost.clock_values[kept],
    )
    lost.stamps[lost.true > 5120] -= lost.stamps[lost.true > 5120].min() - 3
    path = write(tmp_path / "b.xdf", [lost])
    with pytest.raises(RecordingError, match="reset 1 times"):
        dm.open_recordings(path, times="fitted")
