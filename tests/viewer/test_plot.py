"""`plot`: a session and its trials as SVG files that stand alone."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from recording_rig import recorded_session

import ataraxis
from ataraxis.cli import main
from ataraxis.viewer.figures import trials


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recorded_session(
        tmp_path_factory.mktemp("rec"), 8, 4, tuple(range(300, 330))
    )


def texts(path: Path) -> str:
    """The words of an SVG file, which must be well-formed and ask for nothing."""
    text = path.read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("http") == 1, "the name of SVG only"
    assert len(text) < 500_000
    return " ".join(ElementTree.fromstring(text).itertext())


def test_a_session_is_drawn(home: Path) -> None:
    made = ataraxis.plot(home)
    assert made == home / "plot.svg"
    found = texts(made)
    for word in ("m42_day3", "30 frames missing", "probe, 1 s", "wheel, 1 s", "left",
                 "camera", "30 missing frames", "reward"):  # fmt: skip
        assert word in found, word


def test_trials_are_drawn(home: Path, tmp_path: Path) -> None:
    made = ataraxis.plot(home, around="stim_on", before=1.5, after=2.0)
    assert made == home / "around-stim_on.svg"
    found = texts(made)
    for word in ("2 trials around stim_on", "reward: each trial", "probe, uV: mean",
                 "wheel, cm/s: mean", "−1.5 s"):  # fmt: skip
        assert word in found, word
    only = texts(
        ataraxis.plot(home, tmp_path / "a.svg", around="reward", streams=["wheel"])
    )
    assert "wheel: each trial" in only
    assert "probe" not in only


def test_a_raster_has_each_point_and_the_rate_its_scale() -> None:
    drawn = trials(
        [np.array([-0.1, 0.2]), np.array([]), np.array([0.3])],
        np.array([0.0, 5.0, 10.0]),
        np.array([-0.5, 0.0, 0.25, 0.5]),
    )
    raster = drawn.split('class="point" d="')[1].split('"')[0]
    assert raster.count("M") == 3
    assert "10 Hz" in drawn
    assert "3 trials" in drawn


def test_what_is_not_there_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(
        KeyError, match=r"no event 'lick': .* has \['reward', 'stim_on'"
    ):
        ataraxis.plot(home, around="lick")
    with pytest.raises(KeyError, match="no stream or event 'x'"):
        ataraxis.plot(home, streams=["x"])
    with pytest.raises(ValueError, match="not both 0; got before=0"):
        ataraxis.plot(home, around="reward", before=0, after=0)
    ran = CliRunner().invoke(main, ["plot", str(tmp_path)])
    assert ran.exit_code == 1
    assert "expected a log" in ran.output
    out = tmp_path / "p.svg"
    ran = CliRunner().invoke(
        main, ["plot", str(home), "--around", "reward", "-o", str(out)]
    )
    assert ran.exit_code == 0, ran.output
    assert ran.output.strip() == str(out)
    assert texts(out)
